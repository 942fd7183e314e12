"""Text conditioning to pictures, as diffusers' pipelines for Stable Diffusion XL and its relatives draw them."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from pea_jax import mesh as meshes
from pea_jax.adapter import AdapterDims
from pea_jax.errors import PeaError
from pea_jax.models import attention
from pea_jax.models.calls import make_calls
from pea_jax.models.controlnet import ControlNet
from pea_jax.models.unet import UNet2DCondition
from pea_jax.models.vae import AutoencoderKL
from pea_jax.sampling.denoiser import Denoiser, Inputs, denoise
from pea_jax.sampling.guides import Guides, inpainting_channels
from pea_jax.sampling.noise_schedule import SchedulerConfig
from pea_jax.sampling.schedulers import Sampler, make_sampler
from pea_jax.text.conditioner import Conditioning
from pea_jax.weights import load_controlnet, load_unet, load_vae
from pea_jax.weights.locations import locate_base

TEXT_ONLY = Guides()


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to draw: picture i of a call has the noise of `seed` and i, whatever is drawn beside it."""

    steps: int = 25
    guidance_scale: float = 5.0
    seed: int = 0
    scheduler: str = "dpmsolver++"
    batch_size: int = 64


class TextToImage:
    """Draws pictures with a frozen UNet and autoencoder; one compilation a batch shape and number of steps.

    With a ControlNet, or with a UNet made for inpainting, each drawing takes `Guides`.

    Raises:
      PeaError: the networks do not fit one another, or the UNet takes what is not known here.
    """

    def __init__(
        self,
        unet: UNet2DCondition,
        vae: AutoencoderKL,
        scheduler: SchedulerConfig,
        mesh: Mesh | None = None,
        controlnet: ControlNet | None = None,
    ):
        calls = make_calls(meshes.gathering(mesh))
        self._denoiser = Denoiser(unet, vae.config.latent_channels, controlnet, calls)
        self._vae, vae_params = nnx.split(vae)
        self._params = self._denoiser.params, vae_params
        self._scheduler, self._mesh = scheduler, mesh
        self.latent_channels = vae.config.latent_channels
        self.downscale = 2 ** (len(vae.config.block_out_channels) - 1)
        # Whole on every device, as only such an array can be fetched where a mesh spans several processes.
        whole = None if mesh is None else meshes.replicated(mesh)
        self._draw = jax.jit(self._draw_batch, static_argnames="guided", out_shardings=whole)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | pathlib.Path,
        dtype: jax.typing.DTypeLike = jnp.float32,
        mesh: Mesh | None = None,
        *,
        config: str | pathlib.Path | None = None,
        controlnet: str | pathlib.Path | None = None,
    ) -> "TextToImage":
        """From a diffusers folder, OWNER/NAME on the Hugging Face Hub, or a checkpoint in one file.

        Args:
          folder: of a pipeline.
          dtype, mesh: as for `load_unet`.
          config: for a checkpoint in one file, the diffusers folder of its base model.
          controlnet: the folder of a ControlNet.

        Raises:
          PeaError: a part is missing, broken or not supported.
        """
        base = locate_base(folder, config)
        where: dict[str, Any] = dict(dtype=dtype, mesh=mesh)
        return cls(
            load_unet(base.weights, config=base.configs, **where),
            load_vae(base.weights, config=base.configs, **where),
            SchedulerConfig.from_pretrained(base.configs),
            mesh,
            None if controlnet is None else load_controlnet(controlnet, **where),
        )

    def check(self, dims: AdapterDims, name: str) -> None:
        """Refuse an adapter that was made for another base model.

        Its pooled width counts only where the UNet reads pooled embeddings, as Stable Diffusion XL's does.

        Raises:
          PeaError: its widths are not those of the UNet.
        """
        config = self._denoiser.config
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
        guides: Guides = TEXT_ONLY,
    ) -> np.ndarray:
        """Pictures `[N, height, width, 3]` uint8 of N conditionings.

        Args:
          conditioning: of N prompts.
          negative: of N negative prompts, or of one for all; guidance at most 1 does not look at it.
          sampling: steps, guidance, seed.
          height, width: in pixels, multiples of the autoencoder's downscaling.
          indices: which noise each picture starts from; by default 0 to N - 1.
          guides: what is repainted, what the ControlNet is shown.

        Raises:
          PeaError: a size or a number does not fit, the networks need other guides than these, or the scheduler is not
            supported (see `make_sampler`).
        """
        count = conditioning.prompt_embeds.shape[0]
        indices = range(count) if indices is None else indices
        if len(indices) != count:
            raise PeaError(f"{len(indices)} indices of noise for {count} pictures; give one for each")
        noise = noise_for(sampling.seed, indices, (*self.latent_size(height, width), self.latent_channels))
        negative = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape[1:])), negative)
        guides = guides.rows(count, height, width)
        even = -(-count // -(-count // sampling.batch_size))  # the last batch is no smaller than the others need be
        size = _rounded_up(even, self._devices)
        pieces = []
        for start in range(0, count, size):
            piece = functools.partial(_piece, start=start, size=size)
            *batch, guide = jax.tree.map(piece, (conditioning, negative, noise, guides))
            pieces.append(self.generate_from(*batch, sampling=sampling, height=height, width=width, guides=guide))
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
        guides: Guides = TEXT_ONLY,
    ) -> np.ndarray:
        """One batch from given standard-normal `noise` `[B, h, w, c]`; otherwise as `generate`."""
        self._denoiser.check(guides)
        sampler = make_sampler(sampling.scheduler, self._scheduler, sampling.steps)
        arrays = conditioning, negative, noise, guides.rows(noise.shape[0], height, width)
        if self._mesh is not None:
            arrays = jax.device_put(arrays, meshes.batch_sharding(self._mesh))
        time_ids = jnp.asarray([height, width, 0, 0, height, width], jnp.float32)
        pictures = self._draw(
            self._params,
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
        params: tuple[Any, nnx.State],
        sampler: Sampler,
        conditioning: Conditioning,
        negative: Conditioning,
        noise: Array,
        guides: Guides,
        time_ids: Array,
        guidance_scale: Array,
        *,
        guided: bool,
    ) -> Array:
        vae = nnx.merge(self._vae, meshes.gather(params[1], self._mesh))
        with attention.traced_for(self._mesh):
            inputs = _inputs(vae, conditioning, guides, jnp.broadcast_to(time_ids, (noise.shape[0], 6)))
            if guided:
                predict = self._denoiser.bind_guided(params[0], inputs, negative, guidance_scale)
            else:
                predict = self._denoiser.bind(params[0], inputs)
            latents = denoise(predict, sampler, noise)
            pixels = vae.decode(latents / vae.config.scaling_factor).astype(jnp.float32)
        return jnp.round(jnp.clip(pixels / 2 + 0.5, 0, 1) * 255).astype(jnp.uint8)


def _inputs(vae: AutoencoderKL, conditioning: Conditioning, guides: Guides, time_ids: Array) -> Inputs:
    inpainting = None if guides.image is None else inpainting_channels(vae, guides.image, guides.mask_image)
    control = None if guides.control_image is None else guides.control_image.astype(jnp.float32) / 255
    return Inputs(conditioning, time_ids, inpainting, control, guides.controlnet_conditioning_scale)


def noise_for(seed: int, indices: Sequence[int] | np.ndarray, shape: tuple[int, ...]) -> Array:
    """Standard-normal noise `[N, *shape]`; entry i depends on `seed` and `indices[i]` alone."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray(indices))
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _piece(values: Array, *, start: int, size: int) -> Array:
    """`size` rows from `start`; the last row again where there are no more, so that nothing is compiled twice."""
    return values[np.minimum(np.arange(start, start + size), values.shape[0] - 1)]
