"""The training step of PEA-Diffusion in PyTorch, written from the published formulas and key list.

The oracle of the tests and the other side of `benchmarks/step.py`. Arrays are in PyTorch's own layouts, NCHW.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class PublishedAdapter(torch.nn.Module):
    """The adapter under its published parameter names."""

    def __init__(self, input_dim: int, hidden_dim: int, pooled_dim: int, output_dim: int):
        super().__init__()
        linear, gelu = torch.nn.Linear, torch.nn.GELU()
        self.layernorm = torch.nn.LayerNorm(input_dim)
        self.projector = torch.nn.Sequential(
            linear(input_dim, hidden_dim, bias=False),
            gelu,
            linear(hidden_dim, hidden_dim, bias=False),
            gelu,
            linear(hidden_dim, pooled_dim, bias=False),
        )
        self.fc = linear(pooled_dim, output_dim)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled first, then tokens: the published order."""
        y = self.projector(self.layernorm(states.to(self.fc.weight.dtype)))
        return y.mean(dim=1), self.fc(torch.nn.functional.gelu(y))


class Features:
    """Catches what each of the UNet's blocks returns, by forward hooks as the released script does."""

    def __init__(self, unet: torch.nn.Module):
        self.caught: list[Tensor] = []
        for block in [*unet.down_blocks, unet.mid_block, *unet.up_blocks]:
            block.register_forward_hook(self._catch)

    def _catch(self, _module: Any, _inputs: Any, output: Any) -> None:
        self.caught.append(output[0] if isinstance(output, tuple) else output)

    def take(self) -> list[Tensor]:
        caught, self.caught = self.caught, []
        return caught


class Denoiser:
    """A UNet of diffusers that gives its prediction and the features of every block; it computes in its own dtype."""

    def __init__(self, unet: torch.nn.Module):
        self.unet, self.features = unet, Features(unet)

    def __call__(self, batch: Mapping[str, Tensor], tokens: Tensor, pooled: Tensor) -> tuple[Tensor, list[Tensor]]:
        dtype = self.unet.dtype
        added = dict(text_embeds=pooled.to(dtype), time_ids=batch["time_ids"])
        sample, tokens = batch["sample"].to(dtype), tokens.to(dtype)
        prediction = self.unet(sample, batch["timesteps"], encoder_hidden_states=tokens, added_cond_kwargs=added)
        return prediction.sample, self.features.take()


def loss(
    student: Denoiser,
    adapter: torch.nn.Module,
    batch: Mapping[str, Tensor],
    *,
    teacher: Denoiser | None = None,
    hybrid: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Noise, output and feature loss, 1 : 1 : 0.1, each divided by the whole batch, and the terms by name.

    `batch` holds `sample`, `target` `[B, C, H, W]`, `timesteps` `[B]`, `time_ids` `[B, 6]`, `native`, `dropped` `[B]`,
    `states` `[B, L, D]`, `null_states` `[1, L, D]`, `prompt_embeds` `[B, L, E]`, `null_prompt_embeds` `[1, L, E]`,
    `pooled_prompt_embeds` `[B, P]`. Without a `teacher` of its own, as the released script has one, the student is it.
    """
    pooled, tokens = adapter(batch["states"])
    _, null = adapter(batch["null_states"])
    dropped = batch["dropped"][:, None, None]
    teacher_tokens = torch.where(dropped, batch["null_prompt_embeds"], batch["prompt_embeds"])
    prediction, features = student(batch, torch.where(dropped, null, tokens), pooled)
    with torch.no_grad():
        target, targets = (teacher or student)(batch, teacher_tokens, batch["pooled_prompt_embeds"])
    native = batch["native"] if hybrid else torch.ones_like(batch["native"])
    parallel = 1 - native if hybrid else native
    terms = dict(
        noise=(native * _error(prediction, batch["target"])).mean(),
        output=(parallel * _error(prediction, target)).mean(),
        features=sum((parallel * _error(a, b)).mean() for a, b in zip(features, targets, strict=True)),
    )
    return terms["noise"] + terms["output"] + 0.1 * terms["features"], terms


def _error(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).square().mean(dim=(1, 2, 3))
