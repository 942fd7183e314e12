"""Our side of `step.py`: the step that `pea_jax.train` compiles, on random weights."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import memory
from benchmarks.random_models import random_models
from benchmarks.step_work import Bucket, Work
from pea_jax import command, flops
from pea_jax import mesh as meshes
from pea_jax.distill import models
from pea_jax.distill.compiled import jitted
from pea_jax.distill.step import make_train_step

Shape = tuple[Bucket, int]


class JaxSide:
    """One process's training; `fields` are set in its config."""

    def __init__(self, work: Work, *, cached: bool = True, fields: dict[str, Any] | None = None):
        command.prepare_devices()
        self._work, self._cached, config = work, cached, work.config
        config.update_from_flattened_dict(fields or {})
        self._mesh = meshes.make_mesh(**config.mesh)
        frozen_models = random_models(work, self._mesh, cached=cached)
        adapter = models.new_adapter(config, frozen_models)
        task = models.make_task(config, frozen_models, adapter, self._mesh)
        step = make_train_step(task, *models.make_optimizer_of(config), config.ema_decay)
        self._step = jitted(step, self._mesh)
        self._frozen = models.frozen_trees(frozen_models, cached=cached)
        self._new_state = lambda: models.new_state(config, adapter, self._mesh)
        self._compiled: dict[Shape, Any] = {}
        self._batches: dict[Shape, Any] = {}
        self.recover()

    def recover(self) -> None:
        """After a step that failed, for which the state was given away."""
        self._state = self._new_state()

    def device(self) -> dict[str, Any]:
        """Name, its memory and that of the frozen parameters, in bytes; None where it is not known."""
        device = self._mesh.devices.flat[0]
        stats = device.memory_stats() or {}
        frozen = sum(leaf.nbytes for leaf in jax.tree.leaves(self._frozen))
        return dict(name=device.device_kind, capacity=stats.get("bytes_limit"), frozen=frozen)

    def prepare(self, bucket: Bucket, rows: int, steps: int = 2) -> dict[str, Any]:
        """Compile the step of a shape and run it.

        Returns the seconds of both together, the operations of a step and the bytes that the compiler planned.
        """
        start = time.perf_counter()
        batch = self._batches[bucket, rows] = self._batch(bucket, rows)
        traced = self._step.trace(self._state, self._frozen, self._put(batch))
        compiled = self._compiled[bucket, rows] = traced.lower().compile()
        self._run(bucket, rows, steps)
        plan = compiled.memory_analysis()
        sizes = [plan.argument_size_in_bytes, plan.temp_size_in_bytes, plan.output_size_in_bytes]
        return dict(
            seconds=time.perf_counter() - start,
            operations=flops.count(traced.jaxpr, again=False),
            planned=sum(sizes) - plan.alias_size_in_bytes,
        )

    def round(self, bucket: Bucket, rows: int, steps: int) -> dict[str, float]:
        """Seconds a step, of `steps` in a row, after one to warm up."""
        self._run(bucket, rows, 1)
        start = time.perf_counter()
        metrics = self._run(bucket, rows, steps)
        seconds = (time.perf_counter() - start) / steps
        if not np.isfinite(metrics["loss"]):
            raise FloatingPointError(f"the loss is {metrics['loss']}")
        return dict(seconds=seconds, peak=self._peak())

    def _run(self, bucket: Bucket, rows: int, steps: int) -> dict[str, jax.Array]:
        for _ in range(steps):
            batch = self._put(self._batches[bucket, rows])
            self._state, metrics = self._compiled[bucket, rows](self._state, self._frozen, batch)
        return jax.block_until_ready((self._state, metrics))[1]

    def try_batch(self, bucket: Bucket, rows: int) -> int:
        """Bytes that two steps of this batch size take; raises where the memory does not do."""
        self._compiled.clear()
        self._batches.clear()
        return self.prepare(bucket, rows)["planned"]

    def matmul_rate(self, size: int) -> float:
        """Operations a second of a product of two random square matrices, in the dtype of the frozen models."""
        dtype = jnp.dtype(self._work.config.dtype)
        a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))
        multiply = jax.jit(lambda a, b: a @ b)
        seconds = []
        for _ in range(12):
            start = time.perf_counter()
            jax.block_until_ready([multiply(a, b) for _ in range(4)])
            seconds.append((time.perf_counter() - start) / 4)
        return 2 * size**3 / float(np.median(seconds[2:]))

    def _peak(self) -> int:
        """Of the device; on a CPU, of the process."""
        stats = self._mesh.devices.flat[0].memory_stats()
        return stats["peak_bytes_in_use"] if stats else memory.resident("VmHWM")

    def _batch(self, bucket: Bucket, rows: int) -> dict[str, Any]:
        """Text states in the dtype in which the cache keeps them."""
        batch, dtype = self._work.batch(bucket, rows, cached=self._cached), jnp.dtype(self._work.config.dtype)
        for name in {"states", "prompt_embeds", "pooled_prompt_embeds"} & batch.keys():
            batch[name] = batch[name].astype(dtype)
        return batch

    def _put(self, batch: Any) -> Any:
        return meshes.put_batch(batch, self._mesh)
