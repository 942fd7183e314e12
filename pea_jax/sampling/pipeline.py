"""Text conditioning to pictures, as diffusers' `StableDiffusionXLPipeline` draws them."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from pea_jax import mesh as meshes
from pea_jax.adapter import AdapterDims
from pea_jax.errors import PeaError
from pea_jax.models.unet import UNet2DCondition
from pea_jax.models.vae import AutoencoderKL
from pea_jax.sampling.noise_schedule import SchedulerConfig
from pea_jax.sampling.schedulers import Sampler, make_sampler
from pea_jax.text.conditioner import Conditioning
from pea_jax.weights import load_unet, load_vae


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to draw: picture i of a call has the noise of `seed` and i, whatever is drawn beside it."""

    steps: int = 25
    guidance_scale: float = 5.0
    seed: int = 0
    scheduler: str = "dpmsolver++"
    batch_size: int = 64


class TextToImage:
    """Draws pictures with a frozen UNet and autoencoder; one compilation a batch shape and number of steps."""

    def __init__(self, unet: UNet2DCondition, vae: AutoencoderKL, scheduler: SchedulerConfig, mesh: Mesh | None = None):
        self._unet_config = unet.config
        self._unet, self._unet_params = nnx.split(unet)
        self._vae, self._vae_params = nnx.split(vae)
        self._scheduler, self._mesh = scheduler, mesh
        self.latent_channels, self.scaling_factor = unet.config.in_channels, vae.config.scaling_factor
        self.downscale = 2 ** (len(vae.config.block_out_channels) - 1)
        # Whole on every device, as only such an array can be fetched where a mesh spans several processes.
        whole = None if mesh is None else meshes.replicated(mesh)
        self._draw = jax.jit(self._draw_batch, static_argnames="guided", out_shardings=whole)

    @classmethod
    def from_pretrained(
        cls, folder: str | pathlib.Path, dtype: jax.typing.DTypeLike = jnp.float32, mesh: Mesh | None = None
    ) -> "TextToImage":
        """From the folder of a diffusers pipeline.

        Raises:
          PeaError: a part is missing, broken or not supported.
        """
        scheduler = SchedulerConfig.from_pretrained(folder)
        return cls(load_unet(folder, dtype=dtype, mesh=mesh), load_vae(folder, dtype=dtype, mesh=mesh), scheduler, mesh)

    def check(self, dims: AdapterDims, name: str) -> None:
        """Refuse an adapter that was made for another base model.

        Its pooled width counts only where the UNet reads pooled embeddings, as Stable Diffusion XL's does.

        Raises:
          PeaError: its widths are not those of the UNet.
        """
        config = self._unet_config
        wanted: list[int | None] = [config.prompt_embed_dim]
        found: list[int | None] = [dims.output_dim]
        if config.addition_embed_type is not None:
            wanted, found = [*wanted, config.pooled_dim], [*found, dims.pooled_dim]
        if wanted != found:
            raise PeaError(
                f"{name}: this adapter was made for another base model: it gives embeddings of widths {found}, "
                f"the UNet takes {wanted}; name the right one with --base_model"
            )

    def generate(
        self,
        conditioning: Conditioning,
        negative: Conditioning,
        sampling: Sampling,
        *,
        height: int,
        width: int,
        indices: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Pictures `[N, height, width, 3]` uint8 of N conditionings.

        Args:
          conditioning: of N prompts.
          negative: of N negative prompts, or of one for all; guidance at most 1 does not look at it.
          sampling: steps, guidance, seed.
          height, width: in pixels, multiples of the autoencoder's downscaling.
          indices: which noise each picture starts from; by default 0 to N - 1.

        Raises:
          PeaError: a size or a number does not fit, or the scheduler is not supported (see `make_sampler`).
        """
        count = conditioning.prompt_embeds.shape[0]
        indices = range(count) if indices is None else indices
        if len(indices) != count:
            raise PeaError(f"{len(indices)} indices of noise for {count} pictures; give one for each")
        noise = noise_for(sampling.seed, indices, (*self.latent_size(height, width), self.latent_channels))
        negative = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape[1:])), negative)
        size = min(sampling.batch_size, _rounded_up(count, self._devices))
        size = _rounded_up(size, self._devices)
        pieces = []
        for start in range(0, count, size):
            piece = functools.partial(_piece, start=start, size=size)
            batch = jax.tree.map(piece, (conditioning, negative, noise))
            pieces.append(self.generate_from(*batch, sampling=sampling, height=height, width=width))
        return np.concatenate(pieces)[:count]

    def generate_from(
        self,
        conditioning: Conditioning,
        negative: Conditioning,
        noise: Array,
        *,
        sampling: Sampling,
        height: int,
        width: int,
    ) -> np.ndarray:
        """One batch from given standard-normal `noise` `[B, h, w, c]`; otherwise as `generate`."""
        sampler = make_sampler(sampling.scheduler, self._scheduler, sampling.steps)
        arrays = conditioning, negative, noise
        if self._mesh is not None:
            arrays = jax.device_put(arrays, meshes.batch_sharding(self._mesh))
        time_ids = jnp.asarray([height, width, 0, 0, height, width], jnp.float32)
        pictures = self._draw(
            (self._unet_params, self._vae_params),
            sampler,
            *arrays,
            time_ids,
            jnp.float32(sampling.guidance_scale),
            guided=sampling.guidance_scale > 1,
        )
        return np.asarray(pictures)

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latents of a picture.

        Raises:
          PeaError: the picture's are not multiples of the autoencoder's downscaling.
        """
        if min(height, width) <= 0 or height % self.downscale or width % self.downscale:
            raise PeaError(f"picture size {height}x{width}: height and width must be multiples of {self.downscale}")
        return height // self.downscale, width // self.downscale

    @property
    def _devices(self) -> int:
        return 1 if self._mesh is None else self._mesh.size

    def _draw_batch(
        self,
        params: tuple[nnx.State, nnx.State],
        sampler: Sampler,
        conditioning: Conditioning,
        negative: Conditioning,
        noise: Array,
        time_ids: Array,
        guidance_scale: Array,
        *,
        guided: bool,
    ) -> Array:
        if self._mesh is not None:
            params = meshes.gather(params, self._mesh)
        unet, vae = nnx.merge(self._unet, params[0]), nnx.merge(self._vae, params[1])
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), negative, conditioning) if guided else conditioning
        call = functools.partial(
            unet,
            prompt_embeds=both.prompt_embeds,
            text_embeds=both.pooled_prompt_embeds,
            time_ids=jnp.broadcast_to(time_ids, (both.prompt_embeds.shape[0], 6)),
            encoder_attention_mask=both.attention_mask,
        )

        def predict(sample: Array, timestep: Array) -> Array:
            sample = jnp.concatenate([sample, sample]) if guided else sample
            prediction = call(sample, jnp.broadcast_to(timestep, sample.shape[:1]))[0].astype(jnp.float32)
            if not guided:
                return prediction
            unconditional, conditional = jnp.split(prediction, 2)
            return unconditional + guidance_scale * (conditional - unconditional)

        def step(carry, i):
            sample, previous = carry
            output = predict(sampler.scale_model_input(sample, i), jnp.asarray(sampler.timesteps)[i])
            return sampler.step(output, i, sample, previous), None

        start = (noise * sampler.init_noise_sigma, jnp.zeros_like(noise))
        (latents, _), _ = jax.lax.scan(step, start, jnp.arange(sampler.num_steps))
        pixels = vae.decode(latents / self.scaling_factor).astype(jnp.float32)
        return jnp.round(jnp.clip(pixels / 2 + 0.5, 0, 1) * 255).astype(jnp.uint8)


def noise_for(seed: int, indices: Sequence[int] | np.ndarray, shape: tuple[int, ...]) -> Array:
    """Standard-normal noise `[N, *shape]`; entry i depends on `seed` and `indices[i]` alone."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray(indices))
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _piece(values: Array, *, start: int, size: int) -> Array:
    """`size` rows from `start`; the last row again where there are no more, so that nothing is compiled twice."""
    return values[np.minimum(np.arange(start, start + size), values.shape[0] - 1)]
