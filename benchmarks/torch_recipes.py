"""How PyTorch is asked to train, as released and better, and networks with random weights made where they are used."""

import dataclasses
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
    code, so that it takes a minute) or "whole". `checkpointing`: activations are computed again in the backward pass.
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
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return network(**fields).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def prepared(unet: Any, recipe: Recipe) -> Any:
    """`unet` as the recipe says, itself."""
    unet.requires_grad_(not recipe.frozen)
    if recipe.channels_last:
        unet.to(memory_format=torch.channels_last)
    if recipe.checkpointing:
        unet.enable_gradient_checkpointing()
    if recipe.compiled == "whole":
        unet.compile()
    elif recipe.compiled:
        for block in unet.modules():
            if isinstance(block, BasicTransformerBlock | ResnetBlock2D):
                block.compile()
    return unet
