"""Pictures that a drawing follows beside its prompt: what an inpainting model repaints, what a ControlNet is shown."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pea_jax.errors import PeaError
from pea_jax.models.vae import AutoencoderKL

PICTURES = {"image": 3, "mask_image": None, "control_image": 3}  # with the number of channels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guides:
    """uint8, of the size of what is drawn, one a drawing or one for all; the names are those of diffusers.

    `image` `[N, H, W, 3]` is repainted where `mask_image` `[N, H, W]` is white (128 and above; bool will do). A
    ControlNet is shown `control_image` `[N, H, W, 3]`, and counts `controlnet_conditioning_scale` times: a number, or
    `[N]`.
    """

    image: Any = None
    mask_image: Any = None
    control_image: Any = None
    controlnet_conditioning_scale: Any = 1.0

    def rows(self, count: int, height: int, width: int) -> "Guides":
        """The same with one row for each of `count` drawings.

        Raises:
          PeaError: a picture is of another kind, number or size.
        """
        pictures = {name: self._picture(name, (height, width), channels) for name, channels in PICTURES.items()}
        scale = np.asarray(self.controlnet_conditioning_scale, np.float32)
        arrays = {**pictures, "controlnet_conditioning_scale": scale if scale.ndim else scale[None]}
        for name, array in arrays.items():
            if array is not None and array.shape[0] not in (1, count):
                raise PeaError(f"{name}: {array.shape[0]} for {count} drawings; give one for each, or one for all")
        return Guides(**jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape[1:])), arrays))

    def _picture(self, name: str, size: tuple[int, int], channels: int | None) -> np.ndarray | None:
        if (given := getattr(self, name)) is None:
            return None
        picture, shape = np.asarray(given), size if channels is None else (*size, channels)
        if picture.dtype != np.uint8 and not (name == "mask_image" and picture.dtype == bool):
            raise PeaError(f"{name}: of dtype {picture.dtype}, must be uint8, 0 to 255")
        if picture.shape[1:] != shape:
            raise PeaError(f"{name}: of shape {list(picture.shape)}, must be [N, {', '.join(map(str, shape))}]")
        return 255 * picture.astype(np.uint8) if picture.dtype == bool else picture


def inpainting_channels(vae: AutoencoderKL, image: Array, mask_image: Array) -> Array:
    """What an inpainting UNet is shown beside the sample: `[B, h, w, 1 + c]`, where to paint, and latents of the rest.

    The latents are the mean of what the autoencoder says, where diffusers draws from it: it is all but certain.
    """
    mask = (mask_image >= 128)[..., None]
    pixels = jnp.where(mask, 0.0, image.astype(jnp.float32) / 127.5 - 1)
    mean, _ = jnp.split(vae.encode(pixels).astype(jnp.float32), 2, axis=-1)
    every = image.shape[1] // mean.shape[1]
    return jnp.concatenate([mask[:, ::every, ::every].astype(jnp.float32), mean * vae.config.scaling_factor], axis=-1)
