"""Latent moments and text states of a whole training set, computed once and read by every step."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from pea_jax.data import Captions, Sample
from pea_jax.distill.models import Encoders
from pea_jax.mesh import gather, put_batch
from pea_jax.models import attention

CHUNK = 128  # samples encoded at a time, fewer where their pixels are more than
PIXELS = 2**22  # at a time


class Encoder:
    """Makes records of samples: V captions, M and L tokens.

    `moments [h, w, 2c]`, `states [V, L, D]`, `prompt_embeds [V, M, E]` and, where the teacher has it,
    `pooled_prompt_embeds [V, P]`, in the dtypes in which the models give them; `time_ids [6]` and `native []`, float32.

    Args:
      models: the frozen models whose outputs are kept.
      captions: gives V texts for the student and as many for the teacher, as `CaptionRules` do.
      mesh: of the models, this process's devices alone; pictures are divided over it.
    """

    def __init__(self, models: Encoders, captions: Callable[[Sample], Captions], mesh: Mesh):
        self._models, self._captions, self._mesh = models, captions, mesh
        graphdef, self._vae = nnx.split(models.vae)

        def encode(params: Any, pixels: jax.Array) -> jax.Array:
            with attention.traced_for(mesh):
                return nnx.merge(graphdef, gather(params, mesh)).encode(pixels)

        self._encode = jax.jit(encode)

    def records(self, samples: Iterable[tuple[Sample, np.ndarray, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """One record a sample.

        Args:
          samples: each with its pixels, uint8 `[H, W, 3]`, all of one shape, and its `time_ids`.
        """
        remaining = iter(samples)
        while first := list(itertools.islice(remaining, 1)):
            height, width, _ = first[0][1].shape
            size = max(1, min(CHUNK, PIXELS // (width * height)))
            yield from self._chunk(first + list(itertools.islice(remaining, size - 1)), size)

    def _chunk(self, chunk: list[tuple[Sample, np.ndarray, np.ndarray]], size: int) -> Iterator[dict[str, np.ndarray]]:
        count = len(chunk)
        texts = [self._captions(sample) for sample, _, _ in chunk]
        states, _ = self._models.student.encode(list(itertools.chain.from_iterable(each.student for each in texts)))
        teacher = self._models.teacher.encode(list(itertools.chain.from_iterable(each.teacher for each in texts)))
        columns = dict(
            moments=self._moments(np.stack([pixels for _, pixels, _ in chunk]), size),
            states=_by_sample(states, count),
            prompt_embeds=_by_sample(teacher.prompt_embeds, count),
            time_ids=np.stack([time_ids for _, _, time_ids in chunk]).astype(np.float32),
            native=np.asarray([each.native for each in texts], np.float32),
        )
        if teacher.pooled_prompt_embeds is not None:
            columns["pooled_prompt_embeds"] = _by_sample(teacher.pooled_prompt_embeds, count)
        yield from ({name: values[row] for name, values in columns.items()} for row in range(count))

    def _moments(self, pixels: np.ndarray, size: int) -> np.ndarray:
        """The last chunk is made as long as the others, so that the autoencoder is compiled once a bucket."""
        full = -(-size // self._mesh.size) * self._mesh.size
        filled = np.concatenate([pixels, np.repeat(pixels[-1:], full - len(pixels), axis=0)])
        return np.asarray(self._encode(self._vae, put_batch(filled.astype(np.float32) / 127.5 - 1, self._mesh)))[
            : len(pixels)
        ]


def fingerprint(params: Any) -> str:
    """A short hash of a parameter tree, for the manifest of a cache: other weights make another cache."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _by_sample(values: jax.Array, samples: int) -> np.ndarray:
    array = np.asarray(values)
    return array.reshape(samples, -1, *array.shape[1:])
