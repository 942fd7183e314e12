"""UNets of Stable Diffusion XL's architecture with random weights, in the files in which people have them."""

import json
import math
import pathlib
from typing import Any

import numpy as np

SDXL = dict(
    in_channels=4,
    sample_size=128,
    block_out_channels=(320, 640, 1280),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 2, 10),
    attention_head_dim=(5, 10, 20),
    cross_attention_dim=2048,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)
TINY = SDXL | dict(
    block_out_channels=(32, 64, 128),
    transformer_layers_per_block=1,
    attention_head_dim=(1, 2, 4),
    cross_attention_dim=64,
)
CONFIGS: dict[str, dict[str, Any]] = {"full": SDXL, "tiny": TINY}
FILE = "diffusion_pytorch_model.safetensors"


def write_unet(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """A UNet in diffusers layout, in float16; nothing is done if it is already there.

    Weights are normal with the variance that keeps a signal's, biases and norms vary too. One tensor is in memory at a
    time (5.1 GB in all for the full size), so the file is written here and not by `safetensors`.
    """
    if (folder / FILE).exists():
        return
    shapes = _shapes(config, folder)
    rng, header, end = np.random.default_rng(0), {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = dict(dtype="F16", shape=shape, data_offsets=(start, end))
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    partial = folder / f"{FILE}.partial"
    with partial.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, shape in shapes.items():
            file.write(_random(rng, name, shape).tobytes())
    partial.rename(folder / FILE)


def _shapes(config: dict[str, Any], folder: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Those of PyTorch's own model, whose config is saved in `folder`."""
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        model = UNet2DConditionModel(**config)
    model.save_config(folder)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape, np.float32)
    if len(shape) > 1:
        values *= math.prod(shape[1:]) ** -0.5
    else:
        values = 0.3 * values + (1.0 if name.endswith("weight") else 0.0)
    return values.astype(np.float16)
