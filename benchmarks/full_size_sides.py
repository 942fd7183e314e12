"""The two sides of `full_size.py`: how each loads the UNet and denoises once. Arrays are NHWC."""

import dataclasses
import json
import pathlib
import time
from typing import Any

import numpy as np

from benchmarks import memory

LATENTS, TOKENS = 64, 77


@dataclasses.dataclass
class Found:
    """What the tasks `float32` and `bfloat16` give: the prediction and the features by name; `gradient`: that of a
    scalar made of the prediction, with regard to the prompt embeddings, in float32. And the bytes and seconds it took.
    """

    arrays: dict[str, np.ndarray]
    figures: dict[str, float]


def inputs(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arguments of our UNet, and what the prediction is multiplied by to make the scalar that is differentiated."""
    config, rng = json.loads((folder / "unet" / "config.json").read_text()), np.random.default_rng(1)
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    arguments = dict(
        sample=normal(1, LATENTS, LATENTS, config["in_channels"]),
        timesteps=np.array([500], np.int32),
        prompt_embeds=normal(1, TOKENS, config["cross_attention_dim"]),
        text_embeds=normal(1, pooled),
        time_ids=np.array([[512, 512, 0, 0, 512, 512]], np.float32),
    )
    return arguments, normal(1, LATENTS, LATENTS, config["out_channels"])


def pea_jax(folder: pathlib.Path, task: str) -> Found:
    """float32 is compiled as a whole. bfloat16 runs operation by operation: XLA's CPU backend would turn all parameters
    of a compiled step into float32 at its start, which takes three times their memory."""
    import jax
    from flax import nnx

    from pea_jax.weights import load_unet

    jax.devices()
    dtype = _precision(task)
    unet, loading = memory.measured(lambda: jax.block_until_ready(load_unet(folder, dtype=dtype)))
    graphdef, frozen = nnx.split(unet)
    arguments, weight = inputs(folder)

    def denoise(frozen: Any, arguments: dict[str, Any]) -> dict[str, jax.Array]:
        prediction, features = nnx.merge(graphdef, frozen)(**arguments)
        return dict(features, prediction=prediction)

    def differentiate(frozen: Any, arguments: dict[str, Any]) -> dict[str, jax.Array]:
        def scalar(x: jax.Array) -> jax.Array:
            return (denoise(frozen, dict(arguments, prompt_embeds=x))["prediction"] * weight).sum()

        return dict(gradient=jax.grad(scalar)(arguments["prompt_embeds"]))

    start, step = time.perf_counter(), differentiate if task == "gradient" else denoise
    if dtype == "float32":
        step = jax.jit(step).lower(frozen, arguments).compile()
    compiled = time.perf_counter()
    arrays = jax.block_until_ready(step(frozen, arguments))
    seconds = dict(compilation=compiled - start, step=time.perf_counter() - compiled)
    return _found(arrays, loading, sum(x.nbytes for x in jax.tree.leaves(frozen)), seconds)


def pytorch(folder: pathlib.Path, task: str) -> Found:
    """Eagerly, in as many threads as OMP_NUM_THREADS says."""
    import torch
    from diffusers import UNet2DConditionModel

    from benchmarks.published import Features

    dtype = getattr(torch, _precision(task))
    unet, loading = memory.measured(
        lambda: UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype).requires_grad_(False)
    )
    features, (arguments, weight) = Features(unet), inputs(folder)
    given = {name: torch.from_numpy(x).to(dtype if x.dtype == np.float32 else None) for name, x in arguments.items()}
    prompt_embeds = given["prompt_embeds"].requires_grad_(task == "gradient")
    added = dict(text_embeds=given["text_embeds"], time_ids=given["time_ids"])
    start = time.perf_counter()
    sample = given["sample"].permute(0, 3, 1, 2)
    prediction = unet(sample, given["timesteps"], prompt_embeds, added_cond_kwargs=added).sample
    if task == "gradient":
        (prediction.permute(0, 2, 3, 1) * torch.from_numpy(weight)).sum().backward()
        arrays = dict(gradient=prompt_embeds.grad.numpy())
    else:
        tensors = dict(zip(_names(unet), features.take(), strict=True), prediction=prediction)
        arrays = {name: x.float().permute(0, 2, 3, 1).numpy() for name, x in tensors.items()}
    seconds = dict(compilation=0.0, step=time.perf_counter() - start)
    return _found(arrays, loading, sum(x.nbytes for x in unet.parameters()), seconds)


def _precision(task: str) -> str:
    return "float32" if task == "gradient" else task


def _names(unet: Any) -> list[str]:
    down, up = (
        [f"{kind}_{i}" for i in range(len(blocks))]
        for kind, blocks in (("down", unet.down_blocks), ("up", unet.up_blocks))
    )
    return [*down, "mid", *up]


def _found(arrays: dict[str, Any], loading: dict[str, float], parameters: int, seconds: dict[str, float]) -> Found:
    figures = dict(
        parameters=parameters,
        loading_seconds=loading["seconds"],
        loading_memory=loading["growth"],
        compilation_seconds=seconds["compilation"],
        step_seconds=seconds["step"],
        peak_memory=memory.resident("VmHWM"),
    )
    return Found({name: np.asarray(x, np.float32) for name, x in arrays.items()}, figures)


SIDES = {"PyTorch": pytorch, "pea_jax": pea_jax}
