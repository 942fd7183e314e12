"""Losses between two predictions, one value a sample."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from pea_jax.errors import PeaError
from pea_jax.text.conditioner import Conditioning


def mse(prediction: Array, target: Array) -> Array:
    """Mean squared difference over all axes but the first: `[B, ...]`, `[B, ...]` -> `[B]`, in float32."""
    difference = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(difference), axis=tuple(range(1, difference.ndim)))


def feature_mse(features: Mapping[str, Array], targets: Mapping[str, Array]) -> Array:
    """Sum over the blocks of the mean squared difference of their features, `[B]` (PEA-Diffusion)."""
    return jnp.sum(jnp.stack([mse(features[name], targets[name]) for name in sorted(targets)]), axis=0)


def masked_mean(values: Array, mask: Array) -> Array:
    """Sum of the selected samples over the size of the whole batch, as published: `[B]`, `[B]` -> scalar."""
    return jnp.sum(values * mask) / values.shape[0]


def conditioning_mse(student: Conditioning, teacher: Conditioning) -> Array:
    """Squared difference of the text embeddings, tokens plus pooled, `[B]`.

    Raises:
      PeaError: the two have different numbers of tokens, which cannot be compared one by one.
    """
    ours, theirs = student.prompt_embeds, teacher.prompt_embeds
    if ours.shape != theirs.shape:
        raise PeaError(
            f"config.loss.conditioning: the student has {ours.shape[1]} tokens, the teacher {theirs.shape[1]}; "
            f"set config.text_encoder.context_length={theirs.shape[1]}"
        )
    tokens = mse(ours, theirs)
    if student.pooled_prompt_embeds is None or teacher.pooled_prompt_embeds is None:
        return tokens
    return tokens + mse(student.pooled_prompt_embeds, teacher.pooled_prompt_embeds)
