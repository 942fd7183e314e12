"""A few pictures at a time through the autoencoder, which else takes most of the memory of a drawing."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from pea_jax.models.vae import AutoencoderKL

PIXELS = 2**20  # at a time, of each device: one picture of 1024x1024


class SlicedVAE:
    """`encode` and `decode` of an autoencoder, of so many rows at a time as have `PIXELS` pixels on each device.

    Args:
      vae: the autoencoder, with its arrays.
      devices: over which the rows are split evenly.
    """

    def __init__(self, vae: AutoencoderKL, devices: int = 1):
        self._vae, self._devices = vae, devices
        self.config = vae.config

    def encode(self, pixels: Array) -> Array:
        """As `AutoencoderKL.encode`."""
        return self._sliced(self._vae.encode, pixels, math.prod(pixels.shape[1:3]))

    def decode(self, latents: Array) -> Array:
        """As `AutoencoderKL.decode`."""
        return self._sliced(self._vae.decode, latents, math.prod(latents.shape[1:3]) * self.config.downscale**2)

    def _sliced(self, function: Callable[[Array], Array], rows: Array, pixels: int) -> Array:
        return in_slices(function, rows, self._devices, max(1, PIXELS // pixels))


def in_slices(function: Callable[[Array], Array], rows: Array, devices: int, most: int) -> Array:
    """`function(rows)`, computed for at most `most` rows of each device at a time.

    Args:
      function: of arrays `[n, ...]`, row by row.
      rows: `[B, ...]`, of which each device has as many, one block after the other.
    """
    each = len(rows) // devices
    at_once = next(number for number in range(min(each, most), 0, -1) if each % number == 0)
    if at_once == each:
        return function(rows)
    blocks = rows.reshape(devices, each // at_once, at_once, *rows.shape[1:])
    slices = jnp.swapaxes(blocks, 0, 1).reshape(each // at_once, devices * at_once, *rows.shape[1:])
    found = jax.lax.map(function, slices)
    blocks = found.reshape(each // at_once, devices, at_once, *found.shape[2:])
    return jnp.swapaxes(blocks, 0, 1).reshape(len(rows), *found.shape[2:])
