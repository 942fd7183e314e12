"""What both sides of `step.py` compute: the config, the networks' sizes, the batches."""

import ast
import dataclasses
import runpy
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks.networks import SIZES, Networks

Bucket = tuple[int, int]  # width, height
Shape = tuple[Bucket, int]  # and rows of a batch


def _value(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def mix_of(config: ConfigDict) -> dict[Bucket, float]:
    """How often each bucket of a config comes, the most frequent first; the published share where it says nothing."""
    from pea_jax.config import SDXL_BUCKET_WEIGHTS, SDXL_BUCKETS

    buckets = [tuple(bucket) for bucket in config.data.buckets]
    published = dict(zip(SDXL_BUCKETS, SDXL_BUCKET_WEIGHTS, strict=True))
    weights = config.data.bucket_weights or [published.get(bucket, 1.0) for bucket in buckets]
    return dict(sorted(zip(buckets, weights, strict=True), key=lambda pair: -pair[1]))


@dataclasses.dataclass(frozen=True)
class Work:
    """One training, its weights and its batches random: what is in them costs no time."""

    config: ConfigDict
    networks: Networks
    batch_size: int

    @classmethod
    def of(cls, config_file: str, fields: list[str], size: str | None, batch_size: int) -> "Work":
        """From `configs/ru.py:PRESET`, `NAME=VALUE` of its fields and a key of `SIZES`, or None for what it names."""
        path, _, preset = config_file.partition(":")
        config = runpy.run_path(path)["get_config"](*([preset] if preset else []))
        config.update_from_flattened_dict({name: _value(text) for name, text in (f.split("=", 1) for f in fields)})
        config.batch_size = batch_size
        return cls(config, SIZES[size] if size else Networks.of_config(config), batch_size)

    @property
    def tokens(self) -> tuple[int, int]:
        """The context lengths of student and teacher."""
        return self.config.text_encoder.context_length, self.networks.text_encoder["max_position_embeddings"]

    def batch(self, bucket: Bucket, rows: int, *, cached: bool) -> dict[str, Any]:
        """A batch as the loader gives it, float32 and int32, pictures NHWC; cached: latents and text states."""
        (width, height), rng = bucket, np.random.default_rng(0)
        sizes = np.asarray([height, width, 0, 0, height, width], np.float32)
        batch: dict[str, Any] = dict(time_ids=np.tile(sizes, (rows, 1)), native=np.zeros(rows, np.float32))
        if not cached:
            pixels = rng.uniform(-1, 1, (rows, height, width, 3)).astype(np.float32)
            return batch | dict(pixels=pixels, **self._texts(rng, rows))

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal((rows, *shape), np.float32)

        networks, (student, teacher) = self.networks, self.tokens
        return batch | dict(
            moments=normal(height // networks.downscale, width // networks.downscale, 2 * networks.unet["in_channels"]),
            states=normal(student, networks.student["hidden_size"]),
            prompt_embeds=normal(teacher, networks.prompt_dim),
            pooled_prompt_embeds=normal(networks.pooled_dim),
        )

    def _texts(self, rng: np.random.Generator, rows: int) -> dict[str, dict[str, np.ndarray]]:
        student, teacher = self.tokens
        vocabularies = self.networks.student["vocab_size"], self.networks.text_encoder["vocab_size"]
        own, english = (
            rng.integers(2, vocabulary, (rows, length), np.int32)
            for vocabulary, length in zip(vocabularies, (student, teacher), strict=True)
        )
        return dict(
            student_tokens=dict(input_ids=own, attention_mask=np.ones_like(own)),
            teacher_tokens=dict(input_ids=english, input_ids_2=english),
        )
