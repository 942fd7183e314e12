"""The PyTorch sides of `step.py`: the same training, written from the published recipe, as released or tuned."""

import copy
import gc
import time
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from benchmarks import memory, published
from benchmarks.step_work import Bucket, Shape, Work
from benchmarks.torch_recipes import RECIPES, Recipe, made, prepare_compiler, prepared
from benchmarks.torch_texts import Texts

__all__ = ["RECIPES", "TorchSide"]


class TorchSide:
    """One process's training, on the GPU if there is one."""

    def __init__(self, work: Work, recipe: Recipe):
        self._work, self._recipe, config, networks = work, recipe, work.config, work.networks
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = getattr(torch, config.dtype)
        if recipe.compiled:
            prepare_compiler()
        torch.manual_seed(0)
        unet = made(UNet2DConditionModel, networks.unet, self._device, self._dtype)
        self.teacher = None if recipe.shared else published.Denoiser(copy.deepcopy(unet))  # before it has hooks
        self.student = published.Denoiser(prepared(unet, recipe))
        widths = networks.student["hidden_size"], config.adapter.hidden_dim, networks.pooled_dim, networks.prompt_dim
        self.adapter = published.PublishedAdapter(*widths).to(self._device)
        fused = dict(fused=True) if recipe.compiled and self._device.type == "cuda" else {}
        self._optimizer = torch.optim.AdamW(self.adapter.parameters(), lr=1e-4, weight_decay=0.0, **fused)
        self._scheduler = DDPMScheduler.from_config(networks.scheduler)
        self._vae = None if recipe.cached else made(AutoencoderKL, networks.vae, self._device, torch.float32)
        self._texts = None if recipe.cached else Texts(networks, self._device, self._dtype)
        student_tokens, teacher_tokens = work.tokens
        self._null = dict(
            null_states=torch.zeros(1, student_tokens, networks.student["hidden_size"], device=self._device),
            null_prompt_embeds=torch.zeros(1, teacher_tokens, networks.prompt_dim, device=self._device),
        )
        self._batches: dict[Shape, dict[str, Any]] = {}

    def device(self) -> dict[str, Any]:
        """As `JaxSide.device`."""
        if self._device.type == "cpu":
            return dict(name="cpu", capacity=None, frozen=None)
        capacity = torch.cuda.get_device_properties(0).total_memory
        return dict(name=torch.cuda.get_device_name(), capacity=capacity, frozen=torch.cuda.memory_allocated())

    def prepare(self, bucket: Bucket, rows: int) -> dict[str, Any]:
        """Compile for a shape, by running it; the one before is forgotten.

        Before each call Dynamo goes through the programs that it keeps; with those of every shape it would take long.
        """
        start = time.perf_counter()
        self._batches = {(bucket, rows): self.host_batch(bucket, rows)}
        if self._recipe.compiled:
            torch._dynamo.reset()
        self.round(bucket, rows, 2)
        return dict(seconds=time.perf_counter() - start)

    def round(self, bucket: Bucket, rows: int, steps: int) -> dict[str, float]:
        """Seconds a step, of `steps` in a row, after one to warm up.

        Memory that is only kept is handed back for the other sides, so that the first step takes it anew.
        """
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.step(self._batches[bucket, rows])
        self._wait()
        start = time.perf_counter()
        for _ in range(steps):
            loss = self.step(self._batches[bucket, rows])
        value = loss.item()
        seconds = (time.perf_counter() - start) / steps
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss is {value}")
        peak = self._peak()
        self.recover()
        return dict(seconds=seconds, peak=peak)

    def try_batch(self, bucket: Bucket, rows: int) -> int:
        """As `JaxSide.try_batch`."""
        self.prepare(bucket, rows)
        return self._peak()

    def matmul_rate(self, size: int) -> float:
        """As `JaxSide.matmul_rate`."""
        a, b = (torch.randn(size, size, device=self._device).to(self._dtype) for _ in range(2))
        seconds = []
        for _ in range(12):
            self._wait()
            start = time.perf_counter()
            for _ in range(4):
                a @ b
            self._wait()
            seconds.append((time.perf_counter() - start) / 4)
        return 2 * size**3 / float(np.median(seconds[2:]))

    def recover(self) -> None:
        """Drop gradients and what a step that failed left."""
        for denoiser in (self.student, self.teacher):
            if denoiser is not None:
                denoiser.unet.zero_grad(set_to_none=True)
                denoiser.features.take()
        self._optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def step(self, batch: dict[str, Any]) -> Tensor:
        """One step of training; returns the loss."""
        inputs = self.inputs(_moved(batch, self._device))
        loss, _ = published.loss(self.student, self.adapter, inputs, teacher=self.teacher)
        self._optimizer.zero_grad(set_to_none=True)
        if not self._recipe.frozen:
            self.student.unet.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), self._work.config.optimizer.clip_norm)
        self._optimizer.step()
        return loss.detach()

    def inputs(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What `published.loss` takes, of a batch of `Work`: latents noised, samples dropped, texts encoded."""
        config = self._work.config
        with torch.no_grad():
            given = batch if self._texts is None else {**batch, **self._texts(batch)}
            latents = self._latents(batch) * self._work.networks.vae["scaling_factor"]
            rows = len(latents)
            noise = torch.randn_like(latents)
            if config.noise_offset:
                noise += config.noise_offset * torch.randn(*latents.shape[:2], 1, 1, device=self._device)
            timesteps = torch.randint(0, 1000, (rows,), device=self._device)
            sample = self._scheduler.add_noise(latents, noise, timesteps)
            dropped = torch.rand(rows, device=self._device) < config.condition_dropout
        return {**given, **self._null, **dict(sample=sample, target=noise, timesteps=timesteps, dropped=dropped)}

    def _latents(self, batch: dict[str, Any]) -> Tensor:
        if self._vae is not None:
            return self._vae.encode(batch["pixels"]).latent_dist.sample()
        mean, log_variance = batch["moments"].chunk(2, dim=1)
        return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()

    def host_batch(self, bucket: Bucket, rows: int) -> dict[str, Any]:
        """On the host, in memory that the GPU may read while it computes; pictures NCHW."""
        batch = self._work.batch(bucket, rows, cached=self._recipe.cached)
        return _each(batch, lambda x: _pinned(torch.from_numpy(np.ascontiguousarray(_nchw(x)))))

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else memory.resident("VmHWM")


def _each(batch: Any, change: Any) -> Any:
    if isinstance(batch, dict):
        return {name: _each(value, change) for name, value in batch.items()}
    return change(batch)


def _moved(batch: Any, device: torch.device) -> Any:
    return _each(batch, lambda x: x.to(device, non_blocking=True))


def _nchw(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 1) if x.ndim == 4 else x


def _pinned(x: Tensor) -> Tensor:
    return x.pin_memory() if torch.cuda.is_available() else x
