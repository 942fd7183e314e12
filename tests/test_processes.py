"""Several processes as one run: two of four devices each against one of eight, also after one of them was killed."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from pea_jax import processes
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.errors import PeaError
from tests import commands
from tests.test_train import entries


@pytest.fixture(scope="module")
def fields(world):
    """Of a run whose batches eight devices can share; pictures are drawn at its ends."""
    return {**world[1], "batch_size": 8, "num_steps": 8, "checkpoint.every": 2, "sample.every": 8}


def start(arguments: list[str], devices: int, folder: pathlib.Path = commands.ROOT) -> subprocess.Popen:
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(arguments, cwd=folder, env=environment, **pipes)


def start_two(arguments: list[str], second: Sequence[str] = (), folders: Sequence[pathlib.Path] = (commands.ROOT,) * 2):
    """Both with the same arguments, the second with more, each in its folder."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"--coordinator=localhost:{free.getsockname()[1]}"
    together = [*arguments, coordinator, "--num_processes=2"]
    first = start([*together, "--process_id=0"], 4, folders[0])
    return [first, start([*together, "--process_id=1", *second], 4, folders[1])]


@pytest.mark.slow  # five minutes: five processes, each of which compiles
def test_a_killed_process_and_a_new_start_end_with_the_weights_of_one_process(world, fields):
    folder, _ = world
    alone = start(commands.command("train", fields, config=commands.CONFIG, workdir=folder / "eight"), 8)
    _, errors = alone.communicate(timeout=280)
    assert alone.returncode == 0, errors

    workdir = folder / "two"
    arguments = commands.command("train", fields, config=commands.CONFIG, workdir=workdir)
    first, second = start_two(arguments)
    while not any(line["step"] >= 5 for line in entries(workdir)):
        assert first.poll() is None and second.poll() is None, [first.communicate(), second.communicate()]
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    time.sleep(1)
    first.kill()  # as launchers do; it may have ended by itself already
    first.communicate()

    both = start_two(arguments)
    said = [process.communicate(timeout=280) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "resuming at step" in said[0][0], said
    assert not [line for line in said[1][0].splitlines() if not line.startswith("[Gloo]")]
    found, expected = (load_file(run / "adapter" / "adapter.safetensors") for run in (workdir, folder / "eight"))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    assert [line["step"] for line in entries(workdir)] == list(range(1, 9))
    assert sorted(path.name for path in (workdir / "samples").iterdir()) == ["step_0.png", "step_8.png"]


@pytest.mark.parametrize("what", ["config", "training set"])
def test_what_only_one_has_been_given(world, fields, tmp_path, what: str):
    """Another seed; a shard that lies on two machines, with a sample more on one of them."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, count in ((here, 12), (there, 13 if what == "training set" else 12)):
        folder.mkdir()
        commands.write_shard(folder / "train.tar", "emoji-train-00000.tar", count)
    arguments = commands.command(
        "train", fields | {"data.train": "train.tar"}, config=commands.ROOT / commands.CONFIG, workdir=tmp_path / "run"
    )
    more = ["--config.seed=1"] if what == "config" else []
    first, second = start_two(arguments, more, (here, there))
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 1 and f"error: process 1 has another {what} than process 0" in errors, errors
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 1 and "Traceback" not in errors, errors
    assert not (tmp_path / "run").exists()


def test_processes_that_would_put_different_parts_into_a_cache(world, tmp_path):
    arguments = commands.command("precompute", world[1], config=commands.CONFIG, out=tmp_path / "cache")
    first, second = start_two(arguments, ["--config.seed=1"])
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 1 and "error: process 1 has another config or model than process 0" in errors, errors
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 1 and "Traceback" not in errors, errors
    assert not (tmp_path / "cache" / "manifest.json").exists()


def test_half_a_description_is_refused():
    with pytest.raises(PeaError, match=r"--num_processes, --process_id: needed as well.*or --distributed"):
        processes.join("localhost:1", None, None, detect=False)


def test_one_process_needs_no_agreement():
    processes.join(None, None, None, detect=False)
    assert processes.is_first() and not processes.several() and processes.agree(3) == 3
    with processes.first_goes_ahead("nothing"):
        pass


def test_who_is_done_first_waits_for_the_others():
    """However long that takes; JAX would end all of them, here after a second, else after five minutes."""
    patience = "jax.distributed.initialize = functools.partial(jax.distributed.initialize, shutdown_timeout_seconds=1)"
    main = "lambda: time.sleep(0 if processes.is_first() else 4) or print('done')"
    code = f"import functools, time, jax; from pea_jax import command, processes; {patience}; command.run({main})"
    both = start_two([sys.executable, "-c", code])
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all("done" in out for out, _ in said)


def test_a_command_that_saves_nothing_ends_at_a_sigterm():
    code = "import time; from pea_jax import command; command.run(lambda: print('in', flush=True) or time.sleep(99))"
    both = start_two([sys.executable, "-c", code])
    for process in both:
        while process.stdout.readline() != "in\n":
            assert process.poll() is None
    for process in both:
        process.terminate()
    assert all(process.wait(timeout=10) in (1, -signal.SIGTERM) for process in both)  # 1: the other was gone before
    for process in both:
        process.communicate()


def test_a_ctrl_c_that_only_one_gets_ends_both():
    """At once, and not when the other is done, nor five minutes later."""
    code = """
import time
from pea_jax import command, processes
def main():
    if processes.is_first():
        time.sleep(99)
    raise KeyboardInterrupt
command.run(main)
"""
    first, second = start_two([sys.executable, "-c", code])
    _, interrupted = second.communicate(timeout=60)
    _, lost = first.communicate(timeout=10)
    assert (first.returncode, second.returncode) == (1, 130), (lost, interrupted)
    assert "error: interrupted" in interrupted and "error: process 1 of this run was lost" in lost


def test_an_adapter_of_a_file_lies_on_the_devices_of_all(tmp_path):
    adapter = PEAdapter(AdapterDims(4, 4, None, 4), rngs=nnx.Rngs(0))
    adapter.save_pretrained(tmp_path / "adapter", {}, "")
    code = f"""
import types, jax
from pea_jax import command, mesh
from pea_jax.adapter import PEAdapter
from pea_jax.text.conditioner import AdapterConditioner
def main():
    encoder = types.SimpleNamespace(mesh=mesh.make_mesh(), hidden_size=4, params={{}})
    conditioner = AdapterConditioner(encoder, PEAdapter.from_pretrained({str(tmp_path / "adapter")!r}))
    print(*(len(leaf.sharding.device_set) for leaf in jax.tree.leaves(conditioner.params)))
command.run(main)
"""
    both = start_two([sys.executable, "-c", code])
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all(set(out.splitlines()[-1].split()) == {"8"} for out, _ in said)


def test_an_error_that_nobody_expected_ends_a_process_at_once():
    """And not when its threads, or the other processes, are done."""
    waiting = "import sys, threading, time; threading.Thread(target=time.sleep, args=[600]).start()"
    failing = "from pea_jax import processes; sys.excepthook = processes._show_and_end; raise ValueError('wrong')"
    result = subprocess.run([sys.executable, "-c", f"{waiting}; {failing}"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "ValueError: wrong" in result.stderr
