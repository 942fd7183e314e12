"""How PyTorch is asked to train, as released and better, and networks with random weights made where they are used."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How PyTorch is asked to train.

    `shared`: one UNet is student and teacher; else two copies. `frozen`: autograd knows that the UNet is; else it
    computes the gradients of its weights. `cached`: latents and text states are given; else the autoencoder (float32)
    and both text stacks run in the step. `compiled`: "", "blocks" (each transformer block and resnet, which share their
    code, so that it takes a minute) or "whole"; every shape has code of its own. `checkpointing`: activations are
    computed again in the backward pass.
    """

    shared: bool = True
    frozen: bool = True
    cached: bool = True
    compiled: str = ""
    channels_last: bool = False
    checkpointing: bool = False
    threads: int = 0


TUNED = Recipe(compiled="blocks", channels_last=True)
RECIPES = {
    "published": Recipe(shared=False, frozen=False, cached=False),
    "eager": Recipe(),
    "tuned": TUNED,
    "tuned-whole": dataclasses.replace(TUNED, compiled="whole"),
    "tuned-checkpointing": dataclasses.replace(TUNED, checkpointing=True),
}


def made(network: Any, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """A network of diffusers for inference, its parameters random on `device`."""
    fields = {name: value for name, value in config.items() if not name.startswith("_")}
    with made_on(device, dtype):
        return network(**fields).eval().requires_grad_(False)


@contextlib.contextmanager
def made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """What is made here is on `device`, and floating-point parameters are in `dtype`, from the start."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def prepared(unet: Any, recipe: Recipe) -> Any:
    """`unet` as the recipe says, itself."""
    unet.requires_grad_(not recipe.frozen)
    if recipe.channels_last:
        unet.to(memory_format=torch.channels_last)
    if recipe.checkpointing:
        unet.enable_gradient_checkpointing()
    # Blocks share their code, so that Dynamo takes the second one's width for a size that changes, and from there on
    # would make slower code, for any size.
    if recipe.compiled == "whole":
        unet.compile(dynamic=False)
    elif recipe.compiled:
        for block in unet.modules():
            if isinstance(block, BasicTransformerBlock | ResnetBlock2D):
                block.compile(dynamic=False)
    return unet


def prepare_compiler() -> None:
    """Settings of all that is compiled; where it would give up and go on eagerly, it fails instead."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    settings = torch._dynamo.config
    # All resnets are one function to it, all transformer blocks another, with a program for every width, with and
    # without gradients: some twenty for Stable Diffusion XL, where 8 are allowed.
    settings.recompile_limit = settings.accumulated_recompile_limit = 1024
    settings.fail_on_recompile_limit_hit = True
