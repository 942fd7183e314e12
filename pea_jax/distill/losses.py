"""Losses between two predictions, one value a sample."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from pea_jax.errors import PeaError
from pea_jax.text.conditioner import Conditioning

CONTRAST = 10.0  # logits of the contrast for two texts as far apart as those of a batch are on average


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


def conditioning_contrast(student: Conditioning, teacher: Conditioning) -> Array:
    """Which of the batch's texts is this one? Cross-entropy over the teacher's text embeddings, `[B]`.

    A text is the mean of its tokens beside its pooled embedding. InfoNCE (van den Oord et al. 2018) with squared
    distances, in units of the batch's own, in place of cosines: what the denoiser is told has a length too. Texts that
    the teacher embeds alike, as the same text twice, are all right answers.
    """
    theirs = jax.lax.stop_gradient(_summary(teacher))
    centre, size = jnp.mean(theirs, axis=0, keepdims=True), jnp.mean(jnp.sum(jnp.square(theirs), axis=1))
    ours, theirs = _summary(student) - centre, theirs - centre
    spread = 2 * jnp.mean(jnp.sum(jnp.square(theirs), axis=1))  # the mean distance between two of them
    spread = jnp.where(spread > 1e-6 * size, spread, jnp.inf)  # all are one text: nothing is to be told apart
    logits = -CONTRAST * _squared_distances(ours, theirs) / spread
    right = _squared_distances(theirs, theirs) < 1e-4 * spread
    return -jax.nn.logsumexp(jax.nn.log_softmax(logits, axis=1), axis=1, where=right)


def _summary(conditioning: Conditioning) -> Array:
    tokens = jnp.mean(conditioning.prompt_embeds.astype(jnp.float32), axis=1)
    if conditioning.pooled_prompt_embeds is None:
        return tokens
    return jnp.concatenate([tokens, conditioning.pooled_prompt_embeds.astype(jnp.float32)], axis=1)


def _squared_distances(a: Array, b: Array) -> Array:
    """`[N, D]`, `[M, D]` -> `[N, M]`, without an array of all differences."""
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.square(a), axis=1)[:, None] - 2 * products + jnp.sum(jnp.square(b), axis=1)[None]
