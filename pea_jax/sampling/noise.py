"""The noise of a picture: it belongs to a seed and a number, whatever is drawn beside it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pea_jax.errors import PeaError

MOST_SEEDS = 2**32

Numbers = Sequence[int] | np.ndarray


def keys_for(seeds: Numbers, indices: Numbers) -> Array:
    """Keys `[N]`; entry i depends on `seeds[i]` and `indices[i]` alone.

    Raises:
      PeaError: a seed is negative or has more than 32 bits.
    """
    distinct = {int(seed): None for seed in seeds}
    for seed in distinct:
        if not 0 <= seed < MOST_SEEDS:
            raise PeaError(f"seed={seed}: must be from 0 to {MOST_SEEDS - 1}")
    keys = {seed: jax.random.key(np.uint32(seed)) for seed in distinct}
    return jax.vmap(jax.random.fold_in)(jnp.stack([keys[int(seed)] for seed in seeds]), jnp.asarray(indices))


def initial_noise(keys: Array, shape: tuple[int, ...]) -> Array:
    """Standard-normal noise `[N, *shape]`, what a picture starts from."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def step_noise(keys: Array, step: Array | int, shape: tuple[int, ...]) -> Array:
    """As `initial_noise`, what a stochastic sampler takes at `step`."""
    return initial_noise(jax.vmap(lambda key: jax.random.fold_in(key, step))(keys), shape)


def noise_for(seed: int, indices: Numbers, shape: tuple[int, ...]) -> Array:
    """What the pictures `indices` of `seed` start from, `[N, *shape]`."""
    return initial_noise(keys_for([seed] * len(indices), indices), shape)


def step_noise_for(seed: int, indices: Numbers, shape: tuple[int, ...], step: int) -> Array:
    """As `noise_for`, what a stochastic sampler takes at `step`, counted from the first that is made."""
    return step_noise(keys_for([seed] * len(indices), indices), step, shape)
