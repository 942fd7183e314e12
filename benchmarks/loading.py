"""Memory and time that it takes to load Stable Diffusion XL's UNet, ours and diffusers' `from_pretrained`.

    python -m benchmarks.loading --folder FOLDER

writes a UNet of random weights in half precision into FOLDER if there is none (5.1 GB; `--scale tiny`: a toy) and loads
it, each side in processes of its own, in turns; the best round of each counts. A side is done when it has read one
number of every page of every parameter, since a tensor that is only mapped is not loaded yet. Memory is the growth of
the process's resident set, from after the imports to its peak.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import record

SDXL = dict(
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
CONFIGS = {"full": SDXL, "tiny": TINY}
PAGE = 4096
MEMORY_BAR, TIME_BAR = 1.2, 1.0


def main() -> None:
    args = _arguments()
    if args.side:
        print(json.dumps(_measured(SIDES[args.side](args.folder))))
        return
    if not (args.folder / "unet" / "config.json").exists():
        write_unet(args.folder / "unet", CONFIGS[args.scale])
    rounds: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            rounds[side].append(_in_a_process(args.folder, side))
    best = {side: {key: min(r[key] for r in results) for key in results[0]} for side, results in rounds.items()}
    Console().print(_table(best))
    memory = best["pea_jax"]["growth"] / best["pea_jax"]["parameters"]
    speed = best["diffusers"]["seconds"] / best["pea_jax"]["seconds"]
    print(f"pea_jax takes {memory:.2f} times the bytes of its parameters (bar {MEMORY_BAR})")
    print(f"pea_jax is {speed:.2f} times as fast as diffusers (bar {TIME_BAR})")
    if args.out:
        record.write(args.out, dict(scale=args.scale, rounds=rounds, memory=memory, times_as_fast=speed))


def write_unet(folder: pathlib.Path, config: dict[str, Any]) -> None:
    """A UNet in diffusers layout, its float16 weights a repeated block of random numbers."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.numpy import save_file

    with torch.device("meta"):
        model = UNet2DConditionModel(**config)
    block = (0.02 * np.random.default_rng(0).normal(size=2**20)).astype(np.float16)
    model.save_config(folder)
    tensors = {name: np.resize(block, tuple(value.shape)) for name, value in model.state_dict().items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})


def _pea_jax(folder: pathlib.Path) -> Callable[[], int]:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from pea_jax.weights import load_unet

    def load() -> int:
        parameters = jax.tree.leaves(nnx.state(load_unet(folder, dtype=jnp.float16)))
        return sum(_touched(np.asarray(parameter)) for parameter in parameters)

    return load


def _diffusers(folder: pathlib.Path) -> Callable[[], int]:
    import torch
    from diffusers import UNet2DConditionModel

    def load() -> int:
        model = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float16)
        return sum(_touched(parameter.detach().numpy()) for parameter in model.parameters())

    return load


SIDES: dict[str, Callable[[pathlib.Path], Callable[[], int]]] = {"pea_jax": _pea_jax, "diffusers": _diffusers}


def _touched(array: np.ndarray) -> int:
    """Bytes of `array`, after one number of every page was read."""
    flat = array.ravel(order="K")
    flat[:: PAGE // array.itemsize].sum(dtype=np.float32)
    return array.nbytes


def _measured(load: Callable[[], int]) -> dict[str, float]:
    before, start = _resident("VmRSS"), time.perf_counter()
    parameters = load()
    seconds = time.perf_counter() - start
    return dict(parameters=parameters, growth=_resident("VmHWM") - before, seconds=seconds)


def _resident(field: str) -> int:
    """Bytes of this process's memory, now (VmRSS) or at most (VmHWM)."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _in_a_process(folder: pathlib.Path, side: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.loading", "--folder", str(folder), "--side", side]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def _table(best: dict[str, dict[str, float]]) -> Table:
    table = Table("", "parameters", "memory", "x parameters", "seconds")
    for side, result in best.items():
        sizes = [f"{result[key] / 1e6:,.0f} MB" for key in ("parameters", "growth")]
        table.add_row(side, *sizes, f"{result['growth'] / result['parameters']:.2f}", f"{result['seconds']:.2f}")
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--scale", choices=sorted(CONFIGS), default="full")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
