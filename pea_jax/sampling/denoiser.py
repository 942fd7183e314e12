"""What sampling asks for a prediction: a UNet, alone or with a ControlNet beside it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pea_jax.errors import PeaError
from pea_jax.models import layers
from pea_jax.models.calls import DIRECT, Calls
from pea_jax.models.controlnet import ControlNet
from pea_jax.models.unet import UNet2DCondition
from pea_jax.sampling.guides import Guides
from pea_jax.sampling.noise import step_noise
from pea_jax.sampling.sampler import Sampler
from pea_jax.text.conditioner import Conditioning

# (sample [B, h, w, c], timestep [], number of the step []) -> prediction [B, h, w, c], float32
Predict = Callable[[Array, Array, Array], Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """What stays the same from step to step, a row a picture.

    `time_ids` `[B, 6]`; `timestep_cond`, see `Denoiser.embed_guidance`; `inpainting` `[B, h, w, 1 + c]`, see
    `guides.inpainting_channels`; `controlnet_cond` `[B, H, W, 3]` in [0, 1], see `ControlNet`; `conditioning_scale`
    `[B, S]`, how much it counts in each of S steps.
    """

    conditioning: Conditioning
    time_ids: Array
    timestep_cond: Array | None
    inpainting: Array | None
    controlnet_cond: Array | None
    conditioning_scale: Array


class Kept(NamedTuple):
    """What stays of a picture: its latents `clean` `[B, h, w, c]` where `mask` `[B, h, w, 1]` is 0, with `noise`."""

    mask: Array
    clean: Array
    noise: Array


class Denoiser:
    """A frozen UNet and ControlNet; `params` are the arrays in them, an argument of what is compiled. `calls` says how
    their parts are called.

    Raises:
      PeaError: the UNet takes more than latents, with or without a mask, or the ControlNet was made for another UNet.
    """

    def __init__(
        self, unet: UNet2DCondition, latent_channels: int, controlnet: ControlNet | None = None, calls: Calls = DIRECT
    ):
        self.config, self._calls = unet.config, calls
        self.repaints = _repaints(unet, latent_channels)
        self._unet, params = nnx.split(unet)
        self.params = {"unet": params}
        self._controlnet = None
        if controlnet is not None:
            _check_fit(unet, controlnet)
            self._controlnet, self.params["controlnet"] = nnx.split(controlnet)
            self._spares_unconditional = controlnet.config.global_pool_conditions

    @property
    def is_told_guidance(self) -> bool:
        """Whether guidance is an input of the UNet, as of a consistency model, and not a second prediction."""
        return self.config.time_cond_proj_dim is not None

    def check(self, guides: Guides) -> None:
        """Raises `PeaError` for a picture that is needed and missing, or given and looked at by nobody."""
        needed = []
        if self.repaints:
            by = f"a UNet made for inpainting ({self.config.in_channels} input channels) cannot draw without it"
            needed += [("image", by), ("mask_image", by)]
        if guides.mask_image is not None:
            needed.append(("image", "mask_image says where to paint, and there is nothing to paint on"))
        if self._controlnet is not None:
            needed.append(("control_image", "a ControlNet cannot draw without it"))
        for name, reason in needed:
            if getattr(guides, name) is None:
                raise PeaError(f"{name}: {reason}; give it in Guides")
        if guides.control_image is not None and self._controlnet is None:
            raise PeaError("control_image: nothing here looks at it, it takes a ControlNet")

    def embed_guidance(self, guidance_scale: Array) -> Array | None:
        """`[B]` as the UNet is told it, `[B, time_cond_proj_dim]`; None if it is not (arXiv 2310.04378, 4.2)."""
        if (features := self.config.time_cond_proj_dim) is None:
            return None
        return layers.timestep_embedding(1000 * (guidance_scale - 1), features, flip_sin_to_cos=False, freq_shift=1.0)

    def bind(self, params: Mapping[str, Any], inputs: Inputs) -> Predict:
        """The prediction for given inputs."""
        text = inputs.conditioning
        embeds: dict[str, Any] = dict(
            prompt_embeds=text.prompt_embeds, text_embeds=text.pooled_prompt_embeds, time_ids=inputs.time_ids
        )
        unet = nnx.merge(self._unet, params["unet"])
        controlnet = None if self._controlnet is None else nnx.merge(self._controlnet, params["controlnet"])

        def predict(sample: Array, timestep: Array, i: Array) -> Array:
            timesteps = jnp.broadcast_to(timestep, sample.shape[:1])
            call: dict[str, Any] = dict(timesteps=timesteps, calls=self._calls, **embeds)
            residuals: dict[str, Any] = {}
            if controlnet is not None and inputs.controlnet_cond is not None:
                scale = inputs.conditioning_scale[:, i, None, None, None]
                down, mid = controlnet(sample, controlnet_cond=inputs.controlnet_cond, conditioning_scale=scale, **call)
                residuals = dict(down_block_additional_residuals=down, mid_block_additional_residual=mid)
            if inputs.inpainting is not None:
                sample = jnp.concatenate([sample, inputs.inpainting], axis=-1)
            call |= dict(encoder_attention_mask=text.attention_mask, timestep_cond=inputs.timestep_cond)
            prediction, _ = unet(sample, **residuals, **call)
            return prediction.astype(jnp.float32)

        return predict

    def bind_guided(
        self, params: Mapping[str, Any], inputs: Inputs, negative: Conditioning, guidance_scale: Array
    ) -> Predict:
        """The prediction pushed away from that for `negative` (classifier-free guidance, arXiv 2207.12598)."""
        unconditional = dataclasses.replace(inputs, conditioning=negative)
        if self._controlnet is not None and self._spares_unconditional:
            # diffusers' pipelines run a ControlNet of this kind for the conditional half alone.
            unconditional = dataclasses.replace(
                unconditional, conditioning_scale=jnp.zeros_like(inputs.conditioning_scale)
            )
        predict = self.bind(params, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), unconditional, inputs))

        def guided(sample: Array, timestep: Array, i: Array) -> Array:
            without, prompted = jnp.split(predict(jnp.concatenate([sample, sample]), timestep, i), 2)
            return without + guidance_scale * (prompted - without)

        return guided


def denoise(predict: Predict, sampler: Sampler, start: Array, keys: Array, kept: Kept | None = None) -> Array:
    """Latents `[B, h, w, c]` after all steps of `sampler`.

    Args:
      predict: what the networks say.
      sampler: of S steps.
      start: as noisy as the first of them wants it.
      keys: `[B]` of the noise that a stochastic sampler adds.
      kept: what is put in again after each step.
    """

    def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        sample, previous = carry
        output = predict(sampler.scale_model_input(sample, i), jnp.asarray(sampler.timesteps)[i], i)
        fresh = step_noise(keys, i, sample.shape[1:]) if sampler.is_stochastic else None
        sample, previous = sampler.step(output, i, sample, previous, fresh)
        if kept is not None:
            sample = (1 - kept.mask) * sampler.add_noise(kept.clean, kept.noise, i + 1) + kept.mask * sample
        return (sample, previous), None

    (latents, _), _ = jax.lax.scan(step, (start, jnp.zeros_like(start)), jnp.arange(sampler.num_steps))
    return latents


def _repaints(unet: UNet2DCondition, latent_channels: int) -> bool:
    """Whether the UNet is shown mask and masked picture beside the latents."""
    found, repainting = unet.config.in_channels, 2 * latent_channels + 1
    if found not in (latent_channels, repainting):
        raise PeaError(
            f"the UNet takes {found} channels, the autoencoder makes {latent_channels}: only as many are supported, "
            f"or {repainting} for inpainting"
        )
    return found == repainting


def _check_fit(unet: UNet2DCondition, controlnet: ControlNet) -> None:
    for name in ("skip_channels", "prompt_embed_dim"):
        found, wanted = getattr(controlnet.config, name), getattr(unet.config, name)
        if found != wanted:
            raise PeaError(f"this ControlNet was made for another base model: its {name} are {found}, not {wanted}")
