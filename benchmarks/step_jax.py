"""Our side of `step.py`: the step that `pea_jax.train` compiles, on random weights."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import memory
from benchmarks.random_models import random_models
from benchmarks.step_programs import Programs, threads
from benchmarks.step_work import Bucket, Shape, Work
from pea_jax import command
from pea_jax import mesh as meshes
from pea_jax.distill import models
from pea_jax.distill.compiled import jitted


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
        self._step = jitted(models.make_step_of(config, task), self._mesh)
        self._frozen = models.frozen_trees(frozen_models, cached=cached)
        self._new_state = lambda: models.new_state(config, adapter, self._mesh)
        self._programs = Programs()
        self._batches: dict[Shape, Any] = {}
        self.recover()

    def recover(self) -> None:
        """After a step that failed, for which the state was given away."""
        self._state = self._new_state()

    def device(self) -> dict[str, Any]:
        """Name, how many, the memory of one and of the frozen parameters, in bytes; None where it is not known."""
        device = self._mesh.devices.flat[0]
        stats = device.memory_stats() or {}
        frozen = sum(leaf.nbytes for leaf in jax.tree.leaves(self._frozen))
        capacity = stats.get("bytes_limit")
        return dict(name=device.device_kind, count=self._mesh.size, capacity=capacity, frozen=frozen)

    def prepare(self, bucket: Bucket, rows: int, steps: int = 2) -> dict[str, Any]:
        """Compile the step of a shape and run it.

        Returns the seconds of both together, without what `compile` has done before, those of compiling, the operations
        of a step and the bytes that the compiler planned.
        """
        start = time.perf_counter()
        self._begin(bucket, rows)
        self._batches[bucket, rows] = self._batch(bucket, rows)
        program = self._programs[bucket, rows]
        self._run(bucket, rows, steps)
        return dict(
            seconds=time.perf_counter() - start,
            compiling=program.seconds,
            operations=program.operations,
            planned=program.planned,
        )

    def compile(self, shapes: list[Shape]) -> None:
        """Several shapes at once, before they are prepared; where one fails, preparing it says so."""
        for shape in shapes:
            self._begin(*shape)
        self._programs.wait()

    def plan(self, bucket: Bucket, rows: int) -> dict[int, int]:
        """Bytes that steps of some batches take, `rows` and its doubles, as compiled at once and not run.

        One that the compiler finds too large is left out.
        """
        batches = [rows * 2**power for power in range(max(2, min(5, threads())))]
        self.compile([(bucket, batch) for batch in batches])
        sizes = {}
        for batch in batches:
            try:
                sizes[batch] = self._programs[bucket, batch].planned
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
        return sizes

    def _begin(self, bucket: Bucket, rows: int) -> None:
        places = meshes.batch_sharding(self._mesh)
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=places), self._batch(bucket, 1)
        )
        self._programs.begin((bucket, rows), self._step, self._state, self._frozen, batch)

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
        step = self._programs[bucket, rows].run
        for _ in range(steps):
            self._state, metrics = step(self._state, self._frozen, self._put(self._batches[bucket, rows]))
        return jax.block_until_ready((self._state, metrics))[1]

    def try_batch(self, bucket: Bucket, rows: int) -> int:
        """Bytes that two steps of this batch size take; raises where the memory does not do."""
        self._programs.keep((bucket, rows))
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
