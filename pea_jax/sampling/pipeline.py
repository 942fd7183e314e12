"""Text conditioning to pictures, as diffusers' pipelines for Stable Diffusion XL and its relatives draw them: text to
image, image to image, inpainting, ControlNet."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
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
from pea_jax.sampling.denoiser import Denoiser
from pea_jax.sampling.drawing import Batch, draw
from pea_jax.sampling.guides import Guides
from pea_jax.sampling.noise import keys_for, noise_for, step_noise_for
from pea_jax.sampling.sampler import Sampler
from pea_jax.sampling.scheduler_config import SchedulerConfig
from pea_jax.sampling.schedulers import make_sampler
from pea_jax.sampling.vae_slicing import SlicedVAE
from pea_jax.text.conditioner import Conditioning
from pea_jax.weights import load_controlnet, load_unet, load_vae
from pea_jax.weights.abstract import values_left_out
from pea_jax.weights.locations import locate_base
from pea_jax.weights.lora import lora_components, merge_lora

__all__ = ["Sampling", "TextToImage", "noise_for", "step_noise_for"]

TEXT_ONLY = Guides()
MOST, PIXELS = 64, 2**23  # that are drawn at once on each device, if nothing else is asked for: eight of 1024x1024


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to draw: picture i of a call has the noise of `seed` and i, whatever is drawn beside it.

    `scheduler`, `use_karras_sigmas` and `timestep_spacing` are those of `make_sampler`. `strength` is the share of the
    steps that is made where drawing starts from a picture. Guidance at most 1 is none: half the work. So many as
    `batch_size` are drawn at once, on all devices; 0 leaves it to their size.
    """

    steps: int = 25
    guidance_scale: float = 5.0
    seed: int = 0
    scheduler: str = "dpmsolver++"
    batch_size: int = 0
    strength: float = 1.0
    use_karras_sigmas: bool | None = None
    timestep_spacing: str | None = None

    def make_sampler(self, config: SchedulerConfig) -> Sampler:
        """The steps that are made.

        Raises:
          PeaError: there are none, or `config` or a setting is not supported.
        """
        made = int(self.steps * self.strength)
        if not 0 < self.strength <= 1 or made < min(1, self.steps):
            raise PeaError(
                f"strength={self.strength:g}: must be above 0 and at most 1, and leave one of {self.steps} steps"
            )
        options = dict(use_karras_sigmas=self.use_karras_sigmas, timestep_spacing=self.timestep_spacing)
        return make_sampler(self.scheduler, config, self.steps, start=self.steps - made, **options)


class TextToImage:
    """Draws pictures with a frozen UNet and autoencoder; one compilation a batch shape and number of steps.

    With a ControlNet, or with a UNet made for inpainting, each drawing takes `Guides`; others may.

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
        self.latent_size = vae.config.latent_size
        # Whole on every device, as only such an array can be fetched where a mesh spans several processes.
        whole = None if mesh is None else meshes.replicated(mesh)
        settings: dict[str, Any] = dict(out_shardings=whole, compiler_options=meshes.compiler_options(mesh))
        self._draw = jax.jit(self._draw_batch, static_argnames=("latent_size", "guided", "from_image"), **settings)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | pathlib.Path,
        dtype: jax.typing.DTypeLike = jnp.float32,
        mesh: Mesh | None = None,
        *,
        config: str | pathlib.Path | None = None,
        controlnet: str | pathlib.Path | None = None,
        loras: Sequence[tuple[str | pathlib.Path, float]] = (),
    ) -> "TextToImage":
        """From a diffusers folder, OWNER/NAME on the Hugging Face Hub, or a checkpoint in one file.

        Args:
          folder: of a pipeline.
          dtype, mesh: as for `load_unet`.
          config: for a checkpoint in one file, the diffusers folder of its base model.
          controlnet: the folder of a ControlNet.
          loras: files and how much they count, see `merge_lora`; they may be several.

        Within `without_values` it cannot draw, and tells whether its parts go together.

        Raises:
          PeaError: a part is missing, broken or not supported.
        """
        base = locate_base(folder, config)
        where: dict[str, Any] = dict(dtype=dtype, mesh=mesh)
        unet = load_unet(base.weights, config=base.configs, **where)
        for path, scale in loras:
            _merge(unet, path, scale)
        return cls(
            unet,
            load_vae(base.weights, config=base.configs, **where),
            SchedulerConfig.of_base(base),
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
        seeds: Sequence[int] | None = None,
        indices: Sequence[int] | None = None,
        guides: Guides = TEXT_ONLY,
    ) -> np.ndarray:
        """Pictures `[N, height, width, 3]` uint8 of N conditionings.

        Args:
          conditioning: of N prompts.
          negative: of N negative prompts, or of one for all; guidance at most 1 does not look at it.
          sampling: steps, guidance, seed.
          height, width: in pixels, multiples of the autoencoder's factor.
          seeds: of each picture; by default that of `sampling`.
          indices: which noise of its seed each picture has; by default 0 to N - 1.
          guides: what is drawn from or repainted, what the ControlNet is shown.

        Raises:
          PeaError: a size or a number does not fit, the networks need other guides than these, or the scheduler is not
            supported (see `make_sampler`).
        """
        count = conditioning.prompt_embeds.shape[0]
        seeds = [sampling.seed] * count if seeds is None else seeds
        indices = range(count) if indices is None else indices
        for name, numbers in dict(indices=indices, seeds=seeds).items():
            if len(numbers) != count:
                raise PeaError(f"{len(numbers)} {name} of noise for {count} pictures; give one for each")
        sampler, latent_size = self.check_drawing(sampling, guides, height=height, width=width)
        rows = guides.rows(count, height, width)
        batch = Batch.of(conditioning, negative, keys_for(seeds, indices), rows, sampler.num_steps)
        time_ids = jnp.asarray([height, width, 0, 0, height, width], jnp.float32)
        scalars = time_ids, jnp.float32(sampling.guidance_scale)
        ways = dict(latent_size=latent_size, **self._ways(sampling, guides))
        largest = self.at_once(sampling, height=height, width=width)
        even = -(-count // -(-count // largest))  # the last batch is no smaller than the others need be
        pieces = batch.pieces(_rounded_up(even, self._devices))
        drawn = [self._drawn(sampler, piece, *scalars, **ways) for piece in pieces]
        return np.concatenate(drawn)[:count]

    def at_once(self, sampling: Sampling, *, height: int, width: int) -> int:
        """How many pictures of this size are drawn at once, at most."""
        return sampling.batch_size or self._devices * max(1, min(MOST, PIXELS // (height * width)))

    def check_drawing(
        self, sampling: Sampling, guides: Guides, *, height: int, width: int
    ) -> tuple[Sampler, tuple[int, int]]:
        """The sampler and the size of the latents of such drawings; raises `PeaError` as `generate`."""
        self._denoiser.check(guides)
        if sampling.strength != 1 and guides.image is None:
            raise PeaError(f"strength={sampling.strength:g}: of drawing from a picture; give an image in Guides")
        return sampling.make_sampler(self._scheduler), self.latent_size(height, width)

    def _ways(self, sampling: Sampling, guides: Guides) -> dict[str, Any]:
        """What of `draw` is decided before it is compiled."""
        guided = sampling.guidance_scale > 1 and not self._denoiser.is_told_guidance
        # diffusers' pipelines for inpainting start from noise alone at full strength, those for image to image do not.
        from_image = guides.image is not None and (guides.mask_image is None or sampling.strength < 1)
        return dict(guided=guided, from_image=from_image)

    def _drawn(self, sampler: Sampler, batch: Batch, *numbers: Array, **ways: Any) -> np.ndarray:
        if self._mesh is not None:
            batch = jax.device_put(batch, meshes.batch_sharding(self._mesh))
        return np.asarray(self._draw(self._params, sampler, batch, *numbers, **ways))

    @property
    def _devices(self) -> int:
        return 1 if self._mesh is None else self._mesh.size

    def _draw_batch(self, params: tuple[Any, nnx.State], *arrays: Any, **static: Any) -> Array:
        vae = SlicedVAE(nnx.merge(self._vae, meshes.gather(params[1], self._mesh)), self._devices)
        with attention.traced_for(self._mesh):
            return draw(self._denoiser, vae, params[0], *arrays, **static)


def _merge(unet: UNet2DCondition, path: str | pathlib.Path, scale: float) -> None:
    merge_lora(unet, path, scale=scale)
    others = [name for name in lora_components(path) if name != "unet"]
    if others and not values_left_out():  # once
        logging.warning("%s: its layers for %s are left out; those of the UNet are merged", path, ", ".join(others))


def _rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
