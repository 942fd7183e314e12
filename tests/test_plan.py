"""The command on this machine's devices, and programs for TPUs that are not here."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import sdxl_configs
from pea_jax import chips, flops, hlo
from pea_jax import config as configs
from pea_jax import mesh as meshes
from pea_jax.distill.abstract import abstract_run
from pea_jax.distill.footprint import TooLarge
from pea_jax.distill.planning import Slice, make_plans, slices
from pea_jax.distill.remembered import Remembered
from pea_jax.errors import PeaError
from pea_jax.models.attention import attention, traced_for
from tests import commands
from tests.distill.test_footprint import NOTHING


@pytest.fixture(scope="module")
def fields(world, tmp_path_factory):
    """Of a base model without weights, so that none can be read."""
    base = tmp_path_factory.mktemp("plan")
    left_out = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(world[1]["base_model"], base, ignore=left_out, dirs_exist_ok=True)
    return world[1] | {"base_model": base, "text_encoder.id": commands.ENCODER}


def test_the_command(fields, tmp_path):
    flags = dict(config=commands.CONFIG, batch=3, out=tmp_path / "plan.json")
    result = commands.run(commands.command("plan", fields | dict(batch_size=24, num_microbatches=2), **flags))
    assert result.returncode == 0, result.stderr
    (plan,) = json.loads((tmp_path / "plan.json").read_text())
    step = plan["step"]
    assert plan["topology"] == "this machine" and plan["bucket"] == [64, 64] and step["batch"] == 3
    parts = sum(step[name] for name in ("parameters", "inputs", "activations", "temporary"))
    assert step["parameters"] > 4e5 and 0.5 * step["memory"] < parts <= 1.1 * step["memory"]
    assert step["activations"] > 0 and 0 < step["gathered"] < step["reduced"]  # the texts, for the contrast
    assert step["flops"] == step["executed_flops"] > 1e7
    each = 24 // plan["chips"]
    assert f"{each} a chip, {each // 2} at a time" in result.stdout  # `batch` is of a part
    assert f"3 a chip, {3 * plan['chips']} in all" in result.stdout and "peak not known" in result.stdout


def test_one_compilation_serves_all_slices_of_a_kind(monkeypatch):
    """What is compiled stands still here; the test of `largest` is in test_footprint."""
    compiled = []

    def measure(config, topology, bucket, batch):
        compiled.append((topology, bucket, batch))
        return dataclasses.replace(NOTHING, batch=batch, reduced=600.0, flops=1e9)

    monkeypatch.setattr("pea_jax.distill.planning.compile_apart", measure)
    monkeypatch.setattr("pea_jax.distill.planning.footprint_of", lambda step, limit: step)
    fields = configs.emoji("ru")
    fields.mesh.fsdp = 2
    found = slices(fields, ["v5e:4x4", "v6e:2x2", "v5e:2x2"])
    plans = make_plans(fields, found, [(64, 64)], batch=3)
    assert sorted(compiled) == [("v5e:2x2", (64, 64), 3), ("v6e:2x2", (64, 64), 3)]
    assert [plan.step.reduced for plan in plans] == [750.0, 600.0, 600.0]  # 15/16 and 3/4 of twice the gradient
    assert [(plan.topology, plan.compiled_for, plan.chips) for plan in plans] == [
        ("v5e:4x4", "v5e:2x2", 16),
        ("v6e:2x2", "v6e:2x2", 4),
        ("v5e:2x2", "v5e:2x2", 4),
    ]
    assert [plan.peak_flops for plan in plans] == [197e12, 918e12, 197e12]


@pytest.mark.parametrize(
    ("name", "count", "gib"),
    [
        ("v5e:4x4", 16, 15.75),
        ("v5e:1x1", 1, 15.75),
        ("v6e:1x1", 1, 31.25),
        ("v4:2x2x1", 4, 30.75),
        ("V4:2x2x1", 4, 30.75),
        ("v5p:2x2x2", 8, 95.74),
    ],
)
def test_what_a_chip_has(name, count, gib):
    """A little less than the 16, 32 and 96 GiB that it has; versions of libtpu differ by megabytes."""
    devices = chips.topology_devices(name)
    assert len(devices) == count
    assert chips.memory_of(devices[0]) == pytest.approx(gib * 2**30, rel=1e-3)


def test_libtpu_has_nothing_to_complain_of():
    """Where there is no TPU: it looks for none in a command that uses JAX's devices."""
    code = "import jax; from pea_jax import chips, command; command.prepare_devices(); "
    code += "print(jax.devices()[0].platform); "
    code += "print(chips.topology_devices('v6e:2x2')[0].device_kind)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TPU_", "JAX_PLATFORMS"))}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=commands.ROOT,
        env=environment | dict(ALLOW_MULTIPLE_LIBTPU_LOAD="1"),
    )
    assert result.stdout.split("\n") == ["cpu", "TPU v6 lite", ""] and result.stderr == ""


def test_a_program_for_tpus_has_their_attention():
    """Forward and backward kernels, on each chip's rows, and no weights of 400 x 400."""
    mesh = meshes.make_mesh(devices=chips.topology_devices("v5e:2x2"))
    array = jax.ShapeDtypeStruct((8, 400, 2, 64), jnp.bfloat16, sharding=meshes.batch_sharding(mesh))

    def loss(*arrays):
        with traced_for(mesh):
            return jnp.sum(attention(*arrays).astype(jnp.float32))

    with jax.default_matmul_precision("default"):  # the kernels' compiler takes bfloat16 at no other
        program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(array, array, array).compile().as_text()
    kernels = [
        one for one in hlo.instructions(program) if one.opcode == "custom-call" and "tpu_custom_call" in one.rest
    ]
    assert len(kernels) == 3 and "400,400" not in program
    assert {array.dims[0] for one in kernels for array in one.results if len(array.dims) == 4} == {2}
    assert hlo.traffic(program) == {"gathered": 0, "reduced": 0}


def test_a_plan_that_was_stopped_goes_on(tmp_path, monkeypatch):
    """What fits, and what does not; another config compiles anew, and so does `--kernels`."""
    compiled = []

    def compile_step(bucket, batch):
        compiled.append(batch)
        if batch > 2:
            raise TooLarge(batch)
        return dataclasses.replace(NOTHING, batch=batch)

    config, path = configs.emoji("ru"), tmp_path / "plans" / "plan.json.steps"
    (one,) = slices(config, ["v5e:2x2"])
    for _ in range(2):
        remembered = Remembered(path, config)(compile_step, one)
        assert remembered((64, 64), 2).batch == 2
        with pytest.raises(TooLarge):
            remembered((64, 64), 3)
    assert compiled == [2, 3]
    config.remat = "block"
    Remembered(path, config)(compile_step, one)((64, 64), 2)
    assert compiled == [2, 3, 2]
    path.write_text(path.read_text()[:-20])  # ended in the middle of a line
    Remembered(path, config)(compile_step, one)((64, 64), 2)
    assert compiled == [2, 3, 2, 2]
    Remembered(path, config, kernels=True)(compile_step, one)((64, 64), 2)
    assert compiled == [2, 3, 2, 2, 2]
    config.remat = "none"
    monkeypatch.setattr("pea_jax.distill.remembered.Footprint", dataclasses.make_dataclass("Footprint", ["other"]))
    with pytest.raises(TooLarge):  # of what another version wrote nothing is known
        Remembered(path, config)(compile_step, one)((64, 64), 3)
    assert compiled == [2, 3, 2, 2, 2, 3]


def test_a_sigterm_ends_the_compiler_as_well(tmp_path):
    code = """
from pea_jax import config
from pea_jax.distill.planning import make_plans, slices
settings = config.emoji("ru")
make_plans(settings, slices(settings, ["v5e:2x2"]), [(64, 64)], batch=1)
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "TMPDIR": str(tmp_path)}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=commands.ROOT, env=environment, **pipes)
    while not [path for path in tmp_path.glob("tmp*") if path.is_dir()]:  # for what the compiler writes
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(1)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and not errors, errors
    assert not [path for path in tmp_path.glob("tmp*") if path.is_dir()]


@pytest.mark.slow  # a minute
def test_a_slice_of_tpus(fields):
    """With and without kernels; what is reckoned without them is not less than what there is."""
    config = configs.emoji("ru")
    config.update_from_flattened_dict(dict(dtype="bfloat16", remat="block", base_model=str(fields["base_model"])))
    config.text_encoder.context_length, config.mesh.fsdp = 16, 2
    found = slices(config, ["v5e:2x2"])
    (early,) = make_plans(config, found, [(64, 64)], batch=4)
    with jax.default_matmul_precision("default"):  # as in the process of its own that does not make the kernels
        (plan,) = make_plans(config, found, [(64, 64)], batch=4, kernels=True)
    assert plan.step.memory < plan.limit and plan.step.reduced > 0
    assert plan.step.kernels and not early.step.kernels
    without_code, all_known = (step.memory - step.program for step in (early.step, plan.step))
    assert plan.step.memory <= early.step.memory and plan.step.program <= early.step.program
    assert abs(all_known - without_code) < 0.15 * all_known + 16e6  # what the kernels need besides is not known before
    assert early.step.gathered == plan.step.gathered and early.step.seconds < plan.step.seconds
    assert plan.images_per_second(0.5) == pytest.approx(4 * 4 * 0.5 * 197e12 / plan.step.flops)


@pytest.mark.slow  # four minutes
def test_the_compiler_needs_less_memory_where_more_is_computed_again():
    """For a TPU, whose compiler keeps what is computed again apart; that of the CPU joins the two."""
    steps = []
    for remat in ("none", "block", "full"):
        config = configs.emoji("ru")
        config.update_from_flattened_dict({"dtype": "bfloat16", "remat": remat, "mesh.fsdp": 4})
        (plan,) = make_plans(config, slices(config, ["v5e:2x2"]), [(64, 64)], batch=128)
        steps.append(plan.step)
    none, block, full = steps
    assert none.activations > 10 * block.activations > 20 * full.activations > 0
    for less in (block, full):
        assert less.activations + less.temporary < 0.5 * (none.activations + none.temporary)
    assert none.executed_flops == none.flops == block.flops < block.executed_flops < full.executed_flops


@pytest.mark.slow  # two minutes
def test_the_step_of_stable_diffusion_xl_has_what_the_compiler_counts(tmp_path):
    """The whole step at full size, lowered for the CPU and not compiled. The compiler counts norms and activations as
    well, and leaves out where kernels reach beyond the picture; both are little beside the products."""
    sdxl_configs.write(tmp_path)
    config = configs.sdxl("ru", str(tmp_path / "text_encoder"))
    config.update_from_flattened_dict({"base_model": str(tmp_path / "base"), "data.cached": True, "batch_size": 1})
    run = abstract_run(config, meshes.make_mesh(devices=jax.devices()[:1]))
    traced = jax.jit(run.train_step).trace(run.state, run.frozen, run.batches[640, 640])
    ours, compilers = flops.operations(traced.jaxpr), traced.lower().cost_analysis()["flops"]
    assert ours.model == ours.executed == pytest.approx(7.61e12, rel=0.01)  # as docs/performance.md has it
    assert 0.98 * compilers < ours.model < 1.02 * compilers


def test_this_machine():
    (here,) = slices(configs.emoji("ru"), [])
    assert isinstance(here, Slice) and here.mesh.size == jax.device_count()
    assert chips.memory_of(jax.devices()[0]) > 2**28


@pytest.mark.parametrize("name", ["v5e:4x4", "v6e:8x8", "v6e:16x16", "v4:4x8x8", "v5p:2x2x4"])
def test_neighbours_share_the_parameters(name):
    """A side of the slice may be longer than `fsdp`; those that gather from each other lie side by side."""
    config = configs.emoji("ru")
    config.mesh.fsdp = 4
    (found,) = slices(config, [name])
    mesh = found.mesh
    assert mesh.shape == {"data": len(chips.topology_devices(name)) // 4, "fsdp": 4}
    for row in mesh.devices:
        places = np.array([device.coords for device in row])
        assert np.ptp(places, axis=0).sum() <= 3  # a line of four or a square


def test_a_name_that_is_no_slice():
    with pytest.raises(PeaError, match="--topology v5e:2x3x9: not a TPU slice"):
        chips.topology_devices("v5e:2x3x9")


def test_without_the_compiler(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(PeaError, match=r"pip install 'pea_jax\[tpu\]'"):
        chips.topology_devices("v5e:2x2")


def test_a_mesh_that_does_not_fit_the_slice():
    config = configs.emoji("ru")
    config.mesh.fsdp = 3
    with pytest.raises(PeaError, match="--topology v5e:2x2: mesh: data=1 x fsdp=3 does not cover 4 devices"):
        slices(config, ["v5e:2x2"])


@pytest.mark.parametrize(
    ("message", "sizes"),
    [
        ("Ran out of memory in memory space hbm. Used 20.00G of 15.75G hbm.", (20 * 2**30, int(15.75 * 2**30))),
        ("for HLO temporaries (2.00T) exceeds available HBM (30.75G).", (2 * 2**40, int(30.75 * 2**30))),
        ("RESOURCE_EXHAUSTED: something else", None),
    ],
)
def test_what_the_compiler_says_of_a_program_too_large(message, sizes):
    assert chips.too_large(Exception(message)) == sizes
