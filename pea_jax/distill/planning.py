"""From a config and a slice of chips to what a training on it would take."""

import copy
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pea_jax import chips, flops
from pea_jax import mesh as meshes
from pea_jax.data.buckets import Size
from pea_jax.distill.abstract import abstract_run
from pea_jax.distill.apart import compile_apart
from pea_jax.distill.footprint import Compiled, Footprint, TooLarge, compile_step, footprint_of, largest
from pea_jax.errors import PeaError

HERE = "this machine"
Measure = Callable[[Size, int], Footprint]  # of a bucket and a batch a chip


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
    def program(self) -> tuple[str, int, bool]:
        """What decides the program of one chip: its kind, over how many the frozen parameters are split, and whether
        there are others."""
        return self.mesh.devices.flat[0].device_kind, self.mesh.shape["fsdp"], self.mesh.size > 1


def slices(config: ConfigDict, topologies: Sequence[str]) -> list[Slice]:
    """The slices of these names, or this machine's devices where there are none.

    Raises:
      PeaError: a name is not known, or the config's mesh does not cover the chips.
    """
    if not topologies:
        return [Slice(HERE, meshes.make_mesh(**config.mesh))]
    found = []
    for name in topologies:
        devices = chips.topology_devices(name)
        try:
            found.append(Slice(name, meshes.make_mesh(**config.mesh, devices=devices)))
        except PeaError as error:
            raise PeaError(f"--topology {name}: {error}") from error
    return found


def make_plans(
    config: ConfigDict,
    topologies: Sequence[Slice],
    buckets: Sequence[Size],
    batch: int | None = None,
    *,
    kernels: bool = False,
    keep: Callable[[Measure, Slice], Measure] = lambda measure, _: measure,
) -> list[Plan]:
    """A plan for each slice and bucket, with `batch` samples a chip, by default as many as fit.

    Of slices on which one chip runs the same program the smallest alone is compiled for. The others differ in the
    number of chips over which the adapter's gradient is summed, and in nothing else.

    Args:
      kernels: programs for TPUs that are not there are compiled to the end, not until their memory is known.
      keep: wraps what measures the programs of a slice, to remember what was found.
    """
    by_program: dict[tuple[str, int, bool], list[Slice]] = {}
    for one in sorted(topologies, key=lambda one: one.mesh.size):
        by_program.setdefault(one.program, []).append(one)
    plans: dict[tuple[str, Size], Plan] = {}
    for same in by_program.values():
        measure = keep(_measure(config, same[0], kernels), same[0])
        for bucket in buckets:
            step = _step(measure, same[0].mesh, bucket, batch)
            plans |= {(one.name, bucket): _plan(one, same[0], bucket, step) for one in same}
    return [plans[one.name, bucket] for one in topologies for bucket in buckets]


def compiler_of(config: ConfigDict, one: Slice, folder: pathlib.Path | None = None) -> Callable[[Size, int], Compiled]:
    """What compiles the step of a config for one slice, in this process; `folder` as for `compile_step`."""
    config = copy.deepcopy(config)
    config.batch_size, config.num_microbatches = one.mesh.size, 1  # `compile_step` sets the batch
    run, limit = abstract_run(config, one.mesh), chips.memory_of(one.mesh.devices.flat[0])
    return functools.partial(compile_step, run, one.mesh, limit, folder=folder)


def _measure(config: ConfigDict, one: Slice, kernels: bool) -> Measure:
    if one.name == HERE or kernels:
        compiled = compiler_of(config, one)
    else:
        compiled = functools.partial(compile_apart, config, one.name)
    limit = chips.memory_of(one.mesh.devices.flat[0])
    return lambda bucket, batch: footprint_of(compiled(bucket, batch), limit)


def _step(measure: Measure, mesh: Mesh, bucket: Size, batch: int | None) -> Footprint | None:
    limit = chips.memory_of(mesh.devices.flat[0])
    compile_batch = functools.partial(measure, bucket)
    if batch is None and limit is not None:
        return largest(compile_batch, limit)
    try:
        return compile_batch(batch or 1)
    except TooLarge:
        return None


def _plan(one: Slice, compiled_for: Slice, bucket: Size, step: Footprint | None) -> Plan:
    device: jax.Device = one.mesh.devices.flat[0]
    if step is not None and one.mesh.size > compiled_for.mesh.size:
        more, fewer = ((count - 1) / count for count in (one.mesh.size, compiled_for.mesh.size))
        step = dataclasses.replace(step, reduced=step.reduced * more / fewer)  # around a longer ring
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
