"""Latent moments and text states of a whole training set, computed once and read by every step."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pea_jax.data import Captions, Sample
from pea_jax.distill.models import FrozenModels

CHUNK = 128  # samples encoded at a time


def records(
    models: FrozenModels,
    samples: Iterable[tuple[Sample, np.ndarray, np.ndarray]],
    captions: Callable[[Sample], Captions],
) -> Iterator[dict[str, np.ndarray]]:
    """One record a sample: V captions, M and L tokens.

    `moments [h, w, 2c]`, `states [V, L, D]`, `prompt_embeds [V, M, E]`, `pooled_prompt_embeds [V, P]`, `time_ids [6]`,
    `native []`; all float32. Without `pooled_prompt_embeds` where the teacher has none.

    Args:
      models: the frozen models whose outputs are kept.
      samples: each with its pixels `[H, W, 3]` in [-1, 1] and its `time_ids`.
      captions: gives V texts for the student and as many for the teacher, as `CaptionRules` do.
    """
    graphdef, params = nnx.split(models.vae)
    encode = jax.jit(lambda params, pixels: nnx.merge(graphdef, params).encode(pixels))
    remaining = iter(samples)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        texts = [captions(sample) for sample, _, _ in chunk]
        asked = list(itertools.chain.from_iterable(each.student for each in texts))
        answered = list(itertools.chain.from_iterable(each.teacher for each in texts))
        states, _ = models.student.encode(asked)
        teacher = models.teacher.encode(answered)
        pixels = np.stack([pixels for _, pixels, _ in chunk])
        columns = dict(
            moments=encode(params, jnp.asarray(_filled(pixels)))[: len(chunk)],
            states=_by_sample(states, len(chunk)),
            prompt_embeds=_by_sample(teacher.prompt_embeds, len(chunk)),
            time_ids=np.stack([time_ids for _, _, time_ids in chunk]),
            native=np.asarray([each.native for each in texts]),
        )
        if teacher.pooled_prompt_embeds is not None:
            columns["pooled_prompt_embeds"] = _by_sample(teacher.pooled_prompt_embeds, len(chunk))
        arrays = {name: np.asarray(values, np.float32) for name, values in columns.items()}
        yield from ({name: values[row] for name, values in arrays.items()} for row in range(len(chunk)))


def fingerprint(params: Any) -> str:
    """A short hash of a parameter tree, for the manifest of a cache: other weights make another cache."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _by_sample(values: jax.Array, samples: int) -> np.ndarray:
    array = np.asarray(values)
    return array.reshape(samples, -1, *array.shape[1:])


def _filled(pixels: np.ndarray) -> np.ndarray:
    """The last chunk as long as the others, so that the encoder is compiled once."""
    return np.concatenate([pixels, np.repeat(pixels[-1:], CHUNK - len(pixels), axis=0)])
