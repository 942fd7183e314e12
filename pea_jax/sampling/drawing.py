"""One batch from conditioning to pixels; pure, to be jitted."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pea_jax.sampling.denoiser import Denoiser, Inputs, Kept, denoise
from pea_jax.sampling.guides import PICTURES, Guides, inpainting_channels, latent_mask, mean_latents
from pea_jax.sampling.noise import initial_noise
from pea_jax.sampling.sampler import Sampler
from pea_jax.sampling.vae_slicing import SlicedVAE
from pea_jax.text.conditioner import Conditioning


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """A row a picture: `key_data` `[B, ...]` of the keys of its noise, in numpy, as what else is not computed: that can
    go to the devices of all processes. Pictures as in `Guides`, and how much a ControlNet counts in each step,
    `[B, S]`."""

    conditioning: Conditioning
    negative: Conditioning
    key_data: Any
    image: Any
    mask_image: Any
    control_image: Any
    control_weights: Any

    @classmethod
    def of(cls, conditioning: Conditioning, negative: Conditioning, keys: Array, guides: Guides, steps: int) -> "Batch":
        """With one `negative` for each row or for all, and `Guides.rows`."""
        negative = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(keys), *x.shape[1:])), negative)
        pictures = {name: getattr(guides, name) for name in PICTURES}
        key_data = np.asarray(jax.random.key_data(keys))
        return cls(conditioning, negative, key_data, **pictures, control_weights=guides.control_weights(steps))

    def pieces(self, size: int) -> Iterator["Batch"]:
        """All rows, `size` at a time; the last row again where there are no more, so that nothing is compiled twice."""
        count = len(self.key_data)
        for start in range(0, count, size):
            rows = np.minimum(np.arange(start, start + size), count - 1)
            yield jax.tree.map(lambda x, rows=rows: x[rows], self)


def draw(
    denoiser: Denoiser,
    vae: SlicedVAE,
    params: Any,
    sampler: Sampler,
    batch: Batch,
    time_ids: Array,
    guidance_scale: Array,
    *,
    latent_size: tuple[int, int],
    guided: bool,
    from_image: bool,
) -> Array:
    """Pictures `[B, H, W, 3]` uint8.

    Args:
      denoiser, params: the networks, and the arrays in them.
      vae: the autoencoder, with its arrays.
      sampler: of as many steps as are to be made.
      batch: what to draw.
      time_ids: `[6]`, see the UNet.
      guidance_scale: a number.
      latent_size: height and width of the latents.
      guided: whether predictions are pushed away from those for the negative prompt.
      from_image: whether drawing starts from `batch.image` with noise, not from noise alone.
    """
    keys, count = jax.random.wrap_key_data(batch.key_data), len(batch.key_data)
    noise = initial_noise(keys, (*latent_size, vae.config.latent_channels))
    blends = batch.mask_image is not None and not denoiser.repaints
    clean: Any = mean_latents(vae, batch.image.astype(jnp.float32) / 127.5 - 1) if from_image or blends else None
    inputs = Inputs(
        conditioning=batch.conditioning,
        time_ids=jnp.broadcast_to(time_ids, (count, 6)),
        timestep_cond=denoiser.embed_guidance(jnp.broadcast_to(guidance_scale, (count,))),
        inpainting=inpainting_channels(vae, batch.image, batch.mask_image) if denoiser.repaints else None,
        controlnet_cond=None if batch.control_image is None else batch.control_image.astype(jnp.float32) / 255,
        conditioning_scale=batch.control_weights,
    )
    if guided:
        predict = denoiser.bind_guided(params, inputs, batch.negative, guidance_scale)
    else:
        predict = denoiser.bind(params, inputs)
    start = sampler.add_noise(clean, noise, 0) if from_image else noise * sampler.init_noise_sigma
    kept = Kept(latent_mask(batch.mask_image, latent_size), clean, noise) if blends else None
    latents = denoise(predict, sampler, start, keys, kept)
    pixels = vae.decode(latents / vae.config.scaling_factor).astype(jnp.float32)
    return jnp.round(jnp.clip(pixels / 2 + 0.5, 0, 1) * 255).astype(jnp.uint8)
