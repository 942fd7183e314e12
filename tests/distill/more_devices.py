"""Run by test_resumption: a run on one device, and the same one resumed on two and then on four.

The true adapter, step, optimizer, loader and checkpoints; in the place of the UNet, which takes long to compile and
which test_step compares on one device and eight, a loss on the outputs of the adapter and noise.

python -m tests.distill.more_devices FOLDER
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh

from pea_jax import mesh as meshes
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.checkpoint import Checkpoints
from pea_jax.data.batches import Batches
from pea_jax.data.loader import make_loader
from pea_jax.distill.step import TrainState, make_optimizer, make_train_step

STEPS, SAMPLES, BATCH, PARTS = 12, 40, 8, 2  # 2.4 epochs, each batch in two parts


class Source:
    """Random precomputed samples."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(number)
        return dict(
            states=rng.normal(size=(5, 12)).astype(np.float32), target=rng.normal(size=(5, 24)).astype(np.float32)
        )


class Task:
    """Has the `loss` of a distillation task."""

    mesh = None

    def __init__(self) -> None:
        self.graphdef, self.params = nnx.split(PEAdapter(AdapterDims(12, 20, 16, 24), rngs=nnx.Rngs(0)))

    def loss(self, params, frozen, batch, key) -> tuple[jax.Array, dict]:
        embeds, pooled = nnx.merge(self.graphdef, params)(batch["states"])
        noise = jax.random.normal(key, batch["target"].shape)
        each = jnp.mean(jnp.square(embeds - batch["target"] - noise), (1, 2)) + jnp.mean(jnp.square(pooled), 1)
        return jnp.mean(each), {}


def main(folder: pathlib.Path) -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_default_matmul_precision", "highest")
    task = Task()
    optimizer = make_optimizer(learning_rate=1e-2, end_learning_rate=1e-5, warmup_steps=2, decay_steps=STEPS)

    def run(devices: int, first: int, last: int, place: pathlib.Path) -> list[dict]:
        """The steps after `first`, on so many devices; resumed where a run on others left off."""
        axes = (AxisType.Auto,) * 2
        mesh = jax.make_mesh((devices, 1), meshes.AXES, axis_types=axes, devices=jax.devices()[:devices])
        step = jax.jit(make_train_step(task, *optimizer, 0.9, PARTS))
        iterator = Batches(make_loader(Source(), lambda record, rng: record, batch_size=BATCH, seed=0, num_threads=1))
        state = TrainState.create(task.params, optimizer[0], jax.random.key(1), ema=True)
        state = jax.device_put(state, meshes.replicated(mesh))
        with Checkpoints(place, every=1, keep=1) as checkpoints:
            if first:
                state = checkpoints.restore(state, iterator)
            done = _steps(step, state, iterator, mesh, last - first)
            checkpoints.save(last, done[0], iterator, force=True)
        return done[1]

    alone = run(1, 0, STEPS, folder / "alone")
    resumed = run(1, 0, 4, folder / "moved") + run(2, 4, 8, folder / "moved") + run(4, 8, STEPS, folder / "moved")
    print(json.dumps([alone, resumed]))


def _steps(step, state: TrainState, iterator: Batches, mesh: Mesh, count: int) -> tuple[TrainState, list[dict]]:
    log = []
    for _ in range(count):
        state, metrics = step(state, None, meshes.put_batch(next(iterator), mesh))
        log.append(dict(rows=iterator.rows.tolist(), loss=float(metrics["loss"]), devices=mesh.size))
    return state, log


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
