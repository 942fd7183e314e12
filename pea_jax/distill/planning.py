"""From a config and a slice of chips to what a training on it would take."""

import copy
import dataclasses
import functools
from collections.abc import Sequence

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pea_jax import chips, flops
from pea_jax import mesh as meshes
from pea_jax.data.buckets import Size
from pea_jax.distill.abstract import AbstractRun, abstract_run
from pea_jax.distill.footprint import Footprint, TooLarge, largest, measure
from pea_jax.errors import PeaError


@dataclasses.dataclass(frozen=True)
class Plan:
    """A training on one slice; `step` is None where it does not fit."""

    topology: str
    compiled_for: str  # the smallest slice given of this kind, see `make_plans`
    chip: str
    chips: int
    mesh: str
    bucket: Size
    limit: int | None  # bytes of memory of a chip
    step: Footprint | None
    peak_flops: float | None

    def images_per_second(self, utilisation: float) -> float | None:
        """Of all chips, each at `utilisation` of its peak."""
        if self.step is None or self.peak_flops is None:
            return None
        return self.chips * self.step.batch * utilisation * self.peak_flops / self.step.flops


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips that a plan is for, by name, and the mesh of the config on them."""

    name: str
    mesh: Mesh

    @property
    def program(self) -> tuple[str, int]:
        """What decides the program of one chip: its kind, and over how many the frozen parameters are split."""
        return self.mesh.devices.flat[0].device_kind, self.mesh.shape["fsdp"]


def slices(config: ConfigDict, topologies: Sequence[str]) -> list[Slice]:
    """The slices of these names, or this machine's devices where there are none.

    Raises:
      PeaError: a name is not known, or the config's mesh does not cover the chips.
    """
    if not topologies:
        return [Slice("this machine", meshes.make_mesh(**config.mesh))]
    found = []
    for name in topologies:
        devices = chips.topology_devices(name)
        try:
            found.append(Slice(name, meshes.make_mesh(**config.mesh, devices=devices)))
        except PeaError as error:
            raise PeaError(f"--topology {name}: {error}") from error
    return found


def make_plans(
    config: ConfigDict, topologies: Sequence[Slice], buckets: Sequence[Size], batch: int | None = None
) -> list[Plan]:
    """A plan for each slice and bucket, with `batch` samples a chip, by default as many as fit.

    Of slices on which one chip runs the same program the smallest alone is compiled for. The others differ in the
    number of chips over which the adapter's gradient is summed, and in nothing else.
    """
    by_program: dict[tuple[str, int], list[Slice]] = {}
    for one in sorted(topologies, key=lambda one: one.mesh.size):
        by_program.setdefault(one.program, []).append(one)
    plans: dict[tuple[str, Size], Plan] = {}
    for same in by_program.values():
        run = _run(config, same[0].mesh)
        for bucket in buckets:
            step = _step(run, same[0].mesh, bucket, batch)
            plans |= {(one.name, bucket): _plan(one, same[0], bucket, step) for one in same}
    return [plans[one.name, bucket] for one in topologies for bucket in buckets]


def _run(config: ConfigDict, mesh: Mesh) -> AbstractRun:
    """With one sample a chip; `measure` sets the batch."""
    config = copy.deepcopy(config)
    config.batch_size = mesh.size
    return abstract_run(config, mesh)


def _step(run: AbstractRun, mesh: Mesh, bucket: Size, batch: int | None) -> Footprint | None:
    limit = chips.memory_of(mesh.devices.flat[0])
    compile_batch = functools.partial(measure, run, bucket, mesh, limit)
    if batch is None and limit is not None:
        return largest(compile_batch, limit)
    try:
        return compile_batch(batch or 1)
    except TooLarge:
        return None


def _plan(one: Slice, compiled_for: Slice, bucket: Size, step: Footprint | None) -> Plan:
    device: jax.Device = one.mesh.devices.flat[0]
    return Plan(
        topology=one.name,
        compiled_for=compiled_for.name,
        chip=device.device_kind,
        chips=one.mesh.size,
        mesh=" x ".join(f"{name} {size}" for name, size in one.mesh.shape.items()),
        bucket=bucket,
        limit=chips.memory_of(device),
        step=step,
        peak_flops=flops.peak_flops(device),
    )
