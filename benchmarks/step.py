"""One training step of a config, ours and PyTorch's, on this machine.

    python -m benchmarks.step --config configs/ru.py:emoji

Both sides read latents and text states from a cache, freeze the UNet and use one copy of it; PyTorch runs eagerly. Each
side runs in processes of its own, in turns, because a machine is not equally fast all the time; the fastest round of
each counts. PyTorch is tried with every number of threads in --threads, and its best one compared.
"""

import argparse
import json
import pathlib
import runpy
import subprocess
import sys
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import record


def main() -> None:
    args = _arguments()
    if args.side:
        seconds = SIDES[args.side](args.config, args.field, args.batch_size, args.steps, args.threads[0])
        print(json.dumps(seconds))
        return
    sides = [("jax", 0), *(("torch", threads) for threads in args.threads)]
    rounds: dict[str, list[float]] = {_label(*side): [] for side in sides}
    for _ in range(args.rounds):
        for side in sides:
            rounds[_label(*side)].append(_in_a_process(args, *side))
    fastest = {name: min(times) for name, times in rounds.items()}
    ours = fastest.pop("pea_jax")
    Console().print(_table(rounds, args.batch_size, ours))
    ratio = min(fastest.values()) / ours
    print(f"pea_jax is {ratio:.2f} times as fast as PyTorch at its best")
    if args.out:
        result = dict(config=args.config, batch_size=args.batch_size, seconds_per_step=rounds, times_as_fast=ratio)
        record.write(args.out, result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/ru.py:emoji")
    parser.add_argument("--field", action="append", default=[], help="NAME=VALUE of the config; several times")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="steps a round, after two to warm up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(args: argparse.Namespace, side: str, threads: int) -> float:
    """Median seconds a step of one round."""
    flags = [f"--{name}={getattr(args, name)}" for name in ("config", "batch_size", "steps")]
    flags += [f"--field={field}" for field in args.field]
    command = [sys.executable, "-m", "benchmarks.step", f"--side={side}", *flags, "--threads", str(threads)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(np.median(json.loads(output.splitlines()[-1])))


def jax_steps(config_file: str, fields: list[str], batch_size: int, steps: int, _threads: int) -> list[float]:
    """Seconds of each step of `pea_jax.train`, all devices of this machine together."""
    from pea_jax import command

    command.prepare_devices()
    import jax

    from pea_jax import mesh as meshes
    from pea_jax.distill import models
    from pea_jax.distill.step import make_train_step

    config = _config(config_file, fields, batch_size)
    mesh = meshes.make_mesh(**config.mesh)
    frozen_models = models.load_models(config, mesh)
    adapter = models.new_adapter(config, frozen_models)
    task = models.make_task(config, frozen_models, adapter, mesh)
    train_step = make_train_step(task, *models.make_optimizer_of(config), config.ema_decay)
    step = jax.jit(train_step, donate_argnums=0)
    frozen = models.frozen_trees(frozen_models, cached=True)
    state = models.new_state(config, adapter, mesh)
    batch = _random_batch(config, frozen_models)
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        state, metrics = step(state, frozen, meshes.put_batch(batch, mesh))
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def torch_steps(config_file: str, fields: list[str], batch_size: int, steps: int, threads: int) -> list[float]:
    """Seconds of each step of the same training in eager PyTorch."""
    import torch
    from diffusers import DDPMScheduler, UNet2DConditionModel

    from benchmarks import published
    from pea_jax import mesh as meshes
    from pea_jax.distill import models

    torch.set_num_threads(threads)
    config = _config(config_file, fields, batch_size)
    frozen_models = models.load_models(config, meshes.make_mesh(data=1))
    dims = models.new_adapter(config, frozen_models).dims
    arrays = {name: torch.from_numpy(x) for name, x in _random_batch(config, frozen_models).items()}
    null = models.frozen_trees(frozen_models, cached=True)
    arrays |= {name: torch.from_numpy(np.array(null[name])) for name in ("null_states", "null_prompt_embeds")}
    unet = UNet2DConditionModel.from_pretrained(config.base_model, subfolder="unet", torch_dtype=torch.float32)
    unet.requires_grad_(False)
    features = published.Features(unet)
    adapter = published.PublishedAdapter(dims.input_dim, dims.hidden_dim, dims.pooled_dim, dims.output_dim)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-4)
    scheduler = DDPMScheduler.from_pretrained(config.base_model, subfolder="scheduler")
    mean, log_variance = arrays.pop("moments").permute(0, 3, 1, 2).chunk(2, dim=1)
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        latents = (mean + torch.randn_like(mean) * (0.5 * log_variance).exp()) * frozen_models.vae.config.scaling_factor
        noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (batch_size,))
        noisy = dict(sample=scheduler.add_noise(latents, noise, timesteps), target=noise, timesteps=timesteps)
        dropped = torch.rand(batch_size) < config.condition_dropout
        loss, _ = published.loss(unet, features, adapter, {**arrays, **noisy, "dropped": dropped})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), config.optimizer.clip_norm)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


SIDES = {"jax": jax_steps, "torch": torch_steps}


def _config(config_file: str, fields: list[str], batch_size: int) -> Any:
    path, _, preset = config_file.partition(":")
    config = runpy.run_path(path)["get_config"](*([preset] if preset else []))
    config.update_from_flattened_dict(dict(field.split("=", 1) for field in fields))
    config.batch_size = batch_size
    return config


def _random_batch(config: Any, frozen_models: Any) -> dict[str, np.ndarray]:
    """A batch of the cache's shapes; what is in it costs no time."""
    unet, rows = frozen_models.unet.config, config.batch_size
    (width, height), downscale = config.data.buckets[0], 2 ** (len(frozen_models.vae.config.block_out_channels) - 1)
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=(rows, *shape)).astype(np.float32)

    return dict(
        moments=normal(height // downscale, width // downscale, 2 * unet.in_channels),
        time_ids=np.tile(np.asarray([height, width, 0, 0, height, width], np.float32), (rows, 1)),
        native=np.zeros(rows, np.float32),
        states=normal(config.text_encoder.context_length, frozen_models.student.hidden_size),
        prompt_embeds=normal(frozen_models.teacher.context_length, unet.cross_attention_dim[0]),
        pooled_prompt_embeds=normal(unet.pooled_dim),
    )


def _label(side: str, threads: int) -> str:
    return "pea_jax" if side == "jax" else f"PyTorch eager, {threads} thread{'s' * (threads > 1)}"


def _table(rounds: dict[str, list[float]], batch_size: int, ours: float) -> Table:
    table = Table("side", "ms a step, fastest round", "all rounds", "images/s", "against pea_jax")
    for name, times in rounds.items():
        best = min(times)
        every = ", ".join(f"{1000 * t:.0f}" for t in times)
        table.add_row(name, f"{1000 * best:.0f}", every, f"{batch_size / best:.0f}", f"{best / ours:.2f}")
    return table


if __name__ == "__main__":
    main()
