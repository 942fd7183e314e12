"""The distillation task: two conditioners, one denoiser, a source of noisy samples and a sum of losses.

The same frozen denoiser is called twice, driven by the foreign prompt through the adapter (student) and by the English
caption (teacher), and the adapter is pulled until output and features agree. Formulas: PEA-Diffusion, arXiv 2311.17086,
and the released training script.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from pea_jax.distill import losses
from pea_jax.distill.latents import NoisySample, forward_diffusion
from pea_jax.mesh import gather, gathering
from pea_jax.models.calls import Calls, Remat, make_calls
from pea_jax.models.vae import sample_moments
from pea_jax.sampling.noise_schedule import NoiseSchedule
from pea_jax.text.conditioner import Conditioning

Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """How much each term counts; a term of weight 0 is not computed.

    `noise` acts on native samples, the others on parallel ones. With `hybrid` off every term acts on every sample.
    `conditioning` compares the text embeddings themselves: not part of PEA-Diffusion, but its natural baseline.
    `contrast` asks that each be nearer to its own English one than to those of the rest of the batch.
    """

    noise: float = 1.0
    output: float = 1.0
    features: float = 0.1
    conditioning: float = 0.0
    contrast: float = 0.0
    hybrid: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class DistillationTask:
    """`loss` is a pure function of the adapter's parameters, the frozen trees, a batch and a key.

    `frozen` holds `unet` (parameters); `student` and `teacher` (parameters of the text encoders, where the batch
    brings token ids) and `vae` (where it brings pixels); `null_states` `[1, L, D]` and `null_prompt_embeds`
    `[1, M, E]`, the encodings of the empty prompt before the adapter and of the teacher.

    `batch` holds `pixels` `[B, H, W, 3]` or `moments` `[B, h, w, 2c]`; `time_ids` `[B, 6]`; `native` `[B]`, 1 for a
    pair without English; `states` `[B, L, D]` or `student_tokens`; `prompt_embeds` `[B, M, E]` with
    `pooled_prompt_embeds` `[B, P]` (if the denoiser takes any), or `teacher_tokens`.
    """

    adapter: nnx.GraphDef
    unet: nnx.GraphDef
    vae: nnx.GraphDef | None
    student: Any  # text encoders with `apply(params, tokens)`; None where states are cached
    teacher: Any
    schedule: NoiseSchedule
    scaling_factor: float
    weights: LossWeights
    condition_dropout: float = 0.1
    noise_offset: float = 0.5
    timesteps: range | None = None  # those that are drawn; None: all of the schedule
    mesh: Mesh | None = None
    remat: Remat = "none"  # of the student's pass, see `models.calls`

    def loss(self, params, frozen: Mapping[str, Any], batch: Batch, key: Array) -> tuple[Array, dict[str, Array]]:
        """The weighted sum of the terms, and each term by name before its weight."""
        key_latents, key_noise, key_drop = jax.random.split(key, 3)
        student, teacher = self.conditionings(params, frozen, batch, key_drop)
        terms = {}
        if self.weights.conditioning:
            terms["conditioning"] = losses.conditioning_mse(student, teacher)
        if self.weights.contrast:
            terms["contrast"] = losses.conditioning_contrast(student, teacher)
        if self.weights.noise or self.weights.output or self.weights.features:
            noisy = self.noisy_sample(frozen, batch, key_latents, key_noise)
            terms |= self.denoiser_terms(frozen, batch, noisy, student, teacher)
        means = {name: losses.masked_mean(value, self._mask(name, batch)) for name, value in terms.items()}
        return sum(getattr(self.weights, name) * mean for name, mean in means.items()), means

    def denoiser_terms(
        self, frozen: Mapping[str, Any], batch: Batch, noisy: NoisySample, student: Conditioning, teacher: Conditioning
    ) -> dict[str, Array]:
        """The `[B]` losses of one student pass and, where some term needs it, one teacher pass."""
        prediction, features = self.denoise(frozen, batch, noisy, student, self._calls(self.remat))
        terms = {}
        if self.weights.noise:
            terms["noise"] = losses.mse(prediction, noisy.target)
        if self.weights.output or self.weights.features:
            targets = self.denoise(frozen, batch, noisy, teacher, self._calls("none"))
            target, target_features = jax.lax.stop_gradient(targets)
        if self.weights.output:
            terms["output"] = losses.mse(prediction, target)
        if self.weights.features:
            terms["features"] = losses.feature_mse(features, target_features)
        return terms

    def denoise(
        self, frozen: Mapping[str, Any], batch: Batch, noisy: NoisySample, conditioning: Conditioning, calls: Calls
    ):
        unet = nnx.merge(self.unet, frozen["unet"])
        return unet(
            noisy.sample,
            noisy.timesteps,
            conditioning.prompt_embeds,
            text_embeds=conditioning.pooled_prompt_embeds,
            time_ids=batch["time_ids"],
            calls=calls,
        )

    def noisy_sample(
        self, frozen: Mapping[str, Any], batch: Batch, key_latents: Array, key_noise: Array
    ) -> NoisySample:
        if "moments" in batch:
            moments = batch["moments"]
        else:
            assert self.vae is not None, "a batch of pixels needs an autoencoder"
            moments = nnx.merge(self.vae, self._whole(frozen["vae"])).encode(batch["pixels"])
        latents = sample_moments(moments.astype(jnp.float32), key_latents) * self.scaling_factor
        return forward_diffusion(key_noise, latents, self.schedule, self.noise_offset, self.timesteps)

    def conditionings(self, params, frozen: Mapping[str, Any], batch: Batch, key: Array):
        """Student and teacher `Conditioning`, with the same samples' tokens dropped on both sides.

        The pooled embedding is never dropped, as published. The student's empty prompt goes through the adapter, which
        therefore learns from it.
        """
        adapter = nnx.merge(self.adapter, params)
        student, teacher = self._student(adapter, frozen, batch), self._teacher(frozen, batch)
        dropped = jax.random.bernoulli(key, self.condition_dropout, (batch["time_ids"].shape[0],))
        null, _ = adapter(frozen["null_states"])
        return (
            _replace_prompt(student, dropped, null),
            _replace_prompt(teacher, dropped, frozen["null_prompt_embeds"]),
        )

    def _student(self, adapter, frozen: Mapping[str, Any], batch: Batch) -> Conditioning:
        if "states" in batch:
            states = batch["states"]
        else:
            states = self.student.apply(self._whole(frozen["student"]), **batch["student_tokens"])
        return Conditioning(*adapter(states))

    def _teacher(self, frozen: Mapping[str, Any], batch: Batch) -> Conditioning:
        if "prompt_embeds" in batch:
            return Conditioning(batch["prompt_embeds"], batch.get("pooled_prompt_embeds"))
        return self.teacher.apply(self._whole(frozen["teacher"]), batch["teacher_tokens"])

    def _mask(self, term: str, batch: Batch) -> Array:
        native = batch["native"].astype(jnp.float32)
        if not self.weights.hybrid:
            return jnp.ones_like(native)
        return native if term == "noise" else 1.0 - native

    def _whole(self, tree):
        return gather(tree, self.mesh)

    def _calls(self, remat: Remat) -> Calls:
        return make_calls(gathering(self.mesh), remat)


def _replace_prompt(conditioning: Conditioning, dropped: Array, null: Array) -> Conditioning:
    prompt_embeds = jnp.where(dropped[:, None, None], null, conditioning.prompt_embeds)
    return dataclasses.replace(conditioning, prompt_embeds=prompt_embeds)
