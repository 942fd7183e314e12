"""Pictures that a drawing follows beside its prompt: what it starts from or repaints, what a ControlNet is shown."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pea_jax.errors import PeaError
from pea_jax.sampling.vae_slicing import SlicedVAE

PICTURES = {"image": 3, "mask_image": None, "control_image": 3}  # with the number of channels
NUMBERS = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guides:
    """uint8, of the size of what is drawn, one a drawing or one for all; the names are those of diffusers.

    `image` `[N, H, W, 3]` is what drawing starts from; with `mask_image` `[N, H, W]` it is repainted where that is
    white (128 and above; bool will do). A ControlNet is shown `control_image` `[N, H, W, 3]`, and counts
    `controlnet_conditioning_scale` times, from the share `control_guidance_start` of the steps to
    `control_guidance_end`: numbers, or `[N]`.
    """

    image: Any = None
    mask_image: Any = None
    control_image: Any = None
    controlnet_conditioning_scale: Any = 1.0
    control_guidance_start: Any = 0.0
    control_guidance_end: Any = 1.0

    def rows(self, count: int, height: int, width: int) -> "Guides":
        """The same with one row for each of `count` drawings.

        Raises:
          PeaError: a picture is of another kind, number or size, or the ControlNet ends before it starts.
        """
        pictures = {name: self._picture(name, (height, width), channels) for name, channels in PICTURES.items()}
        numbers = {name: np.atleast_1d(np.asarray(getattr(self, name), np.float64)) for name in NUMBERS}
        arrays = {**pictures, **numbers}
        for name, array in arrays.items():
            if array is not None and array.shape[0] not in (1, count):
                raise PeaError(f"{name}: {array.shape[0]} for {count} drawings; give one for each, or one for all")
        rows = Guides(**jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape[1:])), arrays))
        start, end = rows.control_guidance_start, rows.control_guidance_end
        if not ((start >= 0) & (start < end) & (end <= 1)).all():
            raise PeaError(
                f"control_guidance_start={start.max():g}, control_guidance_end={end.min():g}: must be parts "
                "of the steps, 0 to 1, the start before the end"
            )
        return rows

    def control_weights(self, steps: int) -> np.ndarray:
        """How much the ControlNet counts in each step, `[N, steps]` float32, of N `rows`."""
        first, last = np.arange(steps) / steps, (np.arange(steps) + 1) / steps
        start, end = self.control_guidance_start[:, None], self.control_guidance_end[:, None]
        counts = (first[None] >= start) & (last[None] <= end)
        return (self.controlnet_conditioning_scale[:, None] * counts).astype(np.float32)

    def _picture(self, name: str, size: tuple[int, int], channels: int | None) -> np.ndarray | None:
        if (given := getattr(self, name)) is None:
            return None
        picture, shape = np.asarray(given), size if channels is None else (*size, channels)
        if picture.dtype != np.uint8 and not (name == "mask_image" and picture.dtype == bool):
            raise PeaError(f"{name}: of dtype {picture.dtype}, must be uint8, 0 to 255")
        if picture.shape[1:] != shape:
            raise PeaError(f"{name}: of shape {list(picture.shape)}, must be [N, {', '.join(map(str, shape))}]")
        return 255 * picture.astype(np.uint8) if picture.dtype == bool else picture


def mean_latents(vae: SlicedVAE, pixels: Array) -> Array:
    """Scaled latents `[B, h, w, c]` of pictures `[B, H, W, 3]` in [-1, 1].

    The mean of what the autoencoder says, where diffusers draws from it: it is all but certain.
    """
    mean, _ = jnp.split(vae.encode(pixels).astype(jnp.float32), 2, axis=-1)
    return mean * vae.config.scaling_factor


def latent_mask(mask_image: Array, latent_size: tuple[int, ...]) -> Array:
    """Where to paint, `[B, h, w, 1]` of 0 and 1: of each patch the upper left pixel decides, as in diffusers."""
    every = mask_image.shape[1] // latent_size[0]
    return (mask_image[:, ::every, ::every, None] >= 128).astype(jnp.float32)


def inpainting_channels(vae: SlicedVAE, image: Array, mask_image: Array) -> Array:
    """What an inpainting UNet is shown beside the sample: `[B, h, w, 1 + c]`, where to paint, and latents of the
    rest."""
    pixels = jnp.where((mask_image >= 128)[..., None], 0.0, image.astype(jnp.float32) / 127.5 - 1)
    latents = mean_latents(vae, pixels)
    return jnp.concatenate([latent_mask(mask_image, latents.shape[1:3]), latents], axis=-1)
