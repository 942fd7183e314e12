"""Latent moments and text states of a whole training set, computed once and read by every step."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pea_jax.data.captions import parallel_captions
from pea_jax.data.samples import Sample
from pea_jax.distill.models import FrozenModels

CHUNK = 128  # samples encoded at a time


def records(
    models: FrozenModels,
    samples: Iterable[tuple[Sample, np.ndarray, np.ndarray]],
    *,
    language: str,
    variants: int,
    english: int,
    seed: int,
) -> Iterator[dict[str, np.ndarray]]:
    """One record a sample: V captions, M and L tokens.

    `moments [h, w, 2c]`, `states [V, L, D]`, `prompt_embeds [V, M, E]`, `pooled_prompt_embeds [V, P]`, `time_ids [6]`,
    `native []`; all float32. Without `pooled_prompt_embeds` where the teacher has none.

    Args:
      models: the frozen models whose outputs are kept.
      samples: each with its pixels `[H, W, 3]` in [-1, 1] and its `time_ids`.
      language, variants, english, seed: as in `data.captions.parallel_captions`.
    """
    graphdef, params = nnx.split(models.vae)
    encode = jax.jit(lambda params, pixels: nnx.merge(graphdef, params).encode(pixels))
    remaining = iter(samples)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        rule = dict(count=variants, english=english, seed=seed)
        captions = [parallel_captions(sample, language, **rule) for sample, _, _ in chunk]
        asked, answered = (list(itertools.chain.from_iterable(texts)) for texts in zip(*captions, strict=True))
        states, _ = models.student.encode(asked)
        teacher = models.teacher.encode(answered)
        pixels = np.stack([pixels for _, pixels, _ in chunk])
        columns = dict(
            moments=encode(params, jnp.asarray(_filled(pixels)))[: len(chunk)],
            states=_by_sample(states, variants + english),
            prompt_embeds=_by_sample(teacher.prompt_embeds, variants + english),
            time_ids=np.stack([time_ids for _, _, time_ids in chunk]),
            native=np.asarray([sample.native for sample, _, _ in chunk]),
        )
        if teacher.pooled_prompt_embeds is not None:
            columns["pooled_prompt_embeds"] = _by_sample(teacher.pooled_prompt_embeds, variants + english)
        arrays = {name: np.asarray(values, np.float32) for name, values in columns.items()}
        yield from ({name: values[row] for name, values in arrays.items()} for row in range(len(chunk)))


def fingerprint(params: Any) -> str:
    """A short hash of a parameter tree, for the manifest of a cache: other weights make another cache."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _by_sample(values: jax.Array, variants: int) -> np.ndarray:
    array = np.asarray(values)
    return array.reshape(-1, variants, *array.shape[1:])


def _filled(pixels: np.ndarray) -> np.ndarray:
    """The last chunk as long as the others, so that the encoder is compiled once."""
    return np.concatenate([pixels, np.repeat(pixels[-1:], CHUNK - len(pixels), axis=0)])
