"""What a training would take of each chip, before anybody has the chips.

    python -m pea_jax.plan --config configs/ru.py --config.mesh.fsdp=4 --topology v5e:2x2,v5e:4x4

The true step of the config is compiled, for a TPU slice that need not be there or, without --topology, for the devices
of this machine. Nothing is run, and of the models the configs and tokenizers alone are read. Memory, operations and
traffic are those of the compiled program, for the largest batch that fits, or for --batch. How fast it runs nobody
knows before: images a second are reckoned with --utilisation of the chips' peak.

Of slices of one kind of chip with the same `fsdp` the smallest alone is compiled for, since one chip runs the same
program on all of them. For TPUs that are not there a program is compiled until its memory is known, and the space that
its code takes is reckoned; --kernels compiles to the end, in many times that. The largest batch takes at least three
compilations, --batch one. With --out each is kept as soon as it is there: what was stopped goes on where it was.
"""

import dataclasses
import json
import pathlib
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.table import Table

from pea_jax import command
from pea_jax.config import check
from pea_jax.distill.planning import Plan, make_plans, slices
from pea_jax.distill.remembered import Remembered
from pea_jax.distill.training_set import buckets_of
from pea_jax.errors import PeaError
from pea_jax.report import console

CONFIG = config_flags.DEFINE_config_file("config", None, "What to train, e.g. configs/ru.py")
TOPOLOGY = flags.DEFINE_list("topology", [], "TPU slices, e.g. v5e:4x4 or v4:2x2x1,v5p:4x4x4; none: this machine")
UTILISATION = flags.DEFINE_float("utilisation", 0.4, "Share of the peak that images a second are reckoned with")
BATCH = flags.DEFINE_integer("batch", None, "Samples a chip; none: as many as fit", lower_bound=1)
ALL_BUCKETS = flags.DEFINE_bool("all_buckets", False, "Every bucket; otherwise the one with the most pixels")
KERNELS = flags.DEFINE_bool("kernels", False, "Compile for TPUs that are not there to the end")
OUT = flags.DEFINE_string("out", None, "JSON file to write")


def main() -> None:
    if CONFIG.value is None:
        raise PeaError("--config is needed, e.g. --config configs/ru.py --topology v5e:4x4")
    if not 0 < UTILISATION.value <= 1:
        raise PeaError(f"--utilisation {UTILISATION.value}: must be more than 0 and at most 1, e.g. 0.4")
    config, out = CONFIG.value, pathlib.Path(OUT.value) if OUT.value else None
    check(config)
    if out is not None:
        command.check_file("--out", out)
    buckets = sorted(buckets_of(config), key=lambda size: -size[0] * size[1])
    buckets = buckets if ALL_BUCKETS.value else buckets[:1]
    settings: dict[str, Any] = dict(kernels=KERNELS.value)
    if out is not None:
        settings["keep"] = Remembered(steps := out.with_name(out.name + ".steps"), config, **settings)
    plans = make_plans(config, slices(config, TOPOLOGY.value), buckets, BATCH.value, **settings)
    console.print(table(plans, config, UTILISATION.value))
    if out is not None:
        with command.whole_file("--out", out) as partial:
            partial.write_text(json.dumps([dataclasses.asdict(plan) for plan in plans], indent=2) + "\n")
        steps.unlink(missing_ok=True)


def table(plans: list[Plan], config: ConfigDict, utilisation: float) -> Table:
    """A column a plan, with the batch of the config beside what the plan found."""
    columns = [lines(plan, config, utilisation) for plan in plans]
    result = Table("", *(plan.topology for plan in plans))
    for name in columns[0]:
        result.add_row(name, *(column[name] for column in columns))
    return result


def lines(plan: Plan, config: ConfigDict, utilisation: float) -> dict[str, str]:
    """The entries of one column by the names of the lines."""
    width, height = plan.bucket
    each = config.batch_size / plan.chips
    at_a_time = f", {each / config.num_microbatches:g} at a time" if config.num_microbatches > 1 else ""
    top = {
        "chips": f"{plan.chips} x {plan.chip}",
        "mesh": plan.mesh,
        "bucket": f"{width}x{height}",
        "batch": f"{plan.step.batch} a chip, {plan.step.batch * plan.chips} in all" if plan.step else "does not fit",
        f"config.batch_size={config.batch_size}": f"{each:g} a chip{at_a_time}",
    }
    return top | _of_step(plan, utilisation)


def _of_step(plan: Plan, utilisation: float) -> dict[str, str]:
    step, speed = plan.step, plan.images_per_second(utilisation)
    limit = _giga(plan.limit) if plan.limit else "not known"
    values = {
        "parameters": step and _giga(step.parameters),
        "its samples": step and _giga(step.inputs),
        "activations": step and f"about {_giga(step.activations)}",
        "temporary": step and _giga(step.temporary),
        "its program": step and f"{_giga(step.program)}{'' if step.kernels else ', reckoned'}",
        "memory in all": f"{_giga(step.memory) if step else 'more than all'} of {limit}",
        "TFLOPs a step": step and f"{step.flops / 1e12:.2f}",
        "TFLOPs with what is computed again": step and f"{step.executed_flops / 1e12:.2f}",
        "gathered": step and _giga(step.gathered),
        "gathered at one time": step and _giga(step.gathered_at_once),
        "reduced": step and _giga(step.reduced),
        "FLOPs a byte of memory traffic": step and f"{step.intensity:.0f}",
        f"images/s, all chips, at {utilisation:.0%} of peak": f"{speed:.1f}" if speed else "peak not known",
        "compiled": step and f"for {plan.compiled_for} in {step.seconds:.0f} s",
    }
    return {name: value or "-" for name, value in values.items()}


def _giga(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


if __name__ == "__main__":
    command.run(main)
