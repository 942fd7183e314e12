"""What sampling asks for a prediction: a UNet, alone or with a ControlNet beside it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pea_jax.errors import PeaError
from pea_jax.models.calls import DIRECT, Calls
from pea_jax.models.controlnet import ControlNet
from pea_jax.models.unet import UNet2DCondition
from pea_jax.sampling.guides import Guides
from pea_jax.sampling.schedulers import Sampler
from pea_jax.text.conditioner import Conditioning

# (sample [B, h, w, c], timestep []) -> prediction [B, h, w, c], float32
Predict = Callable[[Array, Array], Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """What stays the same from step to step, a row a picture.

    `time_ids` `[B, 6]`; `inpainting` `[B, h, w, 1 + c]`, see `guides.inpainting_channels`; `controlnet_cond`
    `[B, H, W, 3]` in [0, 1] and `conditioning_scale` `[B]`, see `ControlNet`.
    """

    conditioning: Conditioning
    time_ids: Array
    inpainting: Array | None
    controlnet_cond: Array | None
    conditioning_scale: Array


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

    def check(self, guides: Guides) -> None:
        """Raises `PeaError` for a picture that is needed and missing, or given and looked at by nobody."""
        inpainting = self.repaints, f"a UNet made for inpainting ({self.config.in_channels} input channels)"
        controlnet = self._controlnet is not None, "a ControlNet"
        for name, (is_needed, by) in dict(image=inpainting, mask_image=inpainting, control_image=controlnet).items():
            is_given = getattr(guides, name) is not None
            if is_needed and not is_given:
                raise PeaError(f"{name}: {by} cannot draw without it; give it in Guides")
            if is_given and not is_needed:
                raise PeaError(f"{name}: nothing here looks at it, it takes {by.partition(' (')[0]}")

    def bind(self, params: Mapping[str, Any], inputs: Inputs) -> Predict:
        """The prediction for given inputs."""
        text = inputs.conditioning
        embeds: dict[str, Any] = dict(
            prompt_embeds=text.prompt_embeds, text_embeds=text.pooled_prompt_embeds, time_ids=inputs.time_ids
        )
        unet = nnx.merge(self._unet, params["unet"])
        controlnet = None if self._controlnet is None else nnx.merge(self._controlnet, params["controlnet"])

        def predict(sample: Array, timestep: Array) -> Array:
            timesteps = jnp.broadcast_to(timestep, sample.shape[:1])
            call: dict[str, Any] = dict(timesteps=timesteps, calls=self._calls, **embeds)
            residuals: dict[str, Any] = {}
            if controlnet is not None and inputs.controlnet_cond is not None:
                scale = inputs.conditioning_scale[:, None, None, None]
                down, mid = controlnet(sample, controlnet_cond=inputs.controlnet_cond, conditioning_scale=scale, **call)
                residuals = dict(down_block_additional_residuals=down, mid_block_additional_residual=mid)
            if inputs.inpainting is not None:
                sample = jnp.concatenate([sample, inputs.inpainting], axis=-1)
            prediction, _ = unet(sample, encoder_attention_mask=text.attention_mask, **residuals, **call)
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

        def guided(sample: Array, timestep: Array) -> Array:
            without, prompted = jnp.split(predict(jnp.concatenate([sample, sample]), timestep), 2)
            return without + guidance_scale * (prompted - without)

        return guided


def denoise(predict: Predict, sampler: Sampler, noise: Array) -> Array:
    """Latents `[B, h, w, c]` after all steps of `sampler`, from standard-normal `noise`."""

    def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        sample, previous = carry
        output = predict(sampler.scale_model_input(sample, i), jnp.asarray(sampler.timesteps)[i])
        return sampler.step(output, i, sample, previous), None

    start = (noise * sampler.init_noise_sigma, jnp.zeros_like(noise))
    (latents, _), _ = jax.lax.scan(step, start, jnp.arange(sampler.num_steps))
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
