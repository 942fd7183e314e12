"""SIGTERM and Ctrl-C: in a loop that does nothing but save, in one process and in two."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from pea_jax.checkpoint import saved_steps
from tests import commands


def start(folder: pathlib.Path, *flags: str, index: int = 0, count: int = 1, port: int = 0) -> subprocess.Popen:
    numbers = [str(index), str(count), str(port)]
    arguments = [sys.executable, "-m", "tests.preemption_loop", str(folder), *numbers, *flags]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        arguments, cwd=commands.ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


def wait_for(path: pathlib.Path, *processes: subprocess.Popen) -> None:
    while not path.exists():
        assert all(process.poll() is None for process in processes), [p.communicate() for p in processes]
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code", "flags"),
    [(signal.SIGTERM, 0, []), (signal.SIGTERM, 75, ["--terminated_code=75"]), (signal.SIGINT, 130, [])],
)
def test_the_step_is_saved_and_said(tmp_path, number, code, flags):
    """A second SIGTERM comes while it is being saved."""
    process = start(tmp_path, *flags)
    wait_for(tmp_path / "stepping_0", process)
    process.send_signal(number)
    wait_for(tmp_path / "saving_0", process)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    (step,) = saved_steps(tmp_path / "checkpoints")
    assert out == f"run: {number.name}, step {step} is saved\n" and not errors


def test_before_the_first_step_there_is_nothing_to_wait_for(tmp_path):
    (tmp_path / "load").touch()
    process = start(tmp_path)
    wait_for(tmp_path / "loading_0", process)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "ended before its first step" in out and not errors


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    process = start(tmp_path)
    wait_for(tmp_path / "stepping_0", process)
    process.send_signal(signal.SIGINT)
    wait_for(tmp_path / "saving_0", process)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "ended at once" in out and not errors
    assert not saved_steps(tmp_path / "checkpoints")


@pytest.mark.parametrize(
    ("around", "said"),
    [("open('/dev/null')", "error: interrupted\n"), ("Preemption('run')", "ended before its first step")],
)
def test_ctrl_c_while_garbage_is_collected(around, said):
    """Of what a callback of the collector raises Python writes a traceback, and goes on."""
    code = f"""
import gc, signal, time
from pea_jax import command
from pea_jax.preemption import Preemption
def callback(phase, info):
    if phase == "start" and info["generation"] == 2 and not sent:
        sent.append(True)
        signal.raise_signal(signal.SIGINT)
sent = []
def main():
    with {around}:
        gc.callbacks.append(callback)
        gc.collect()
        time.sleep(9)
command.run(main)
"""
    arguments = [sys.executable, "-c", code]
    result = subprocess.run(arguments, cwd=commands.ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 130 and said in result.stdout + result.stderr, result
    assert "Traceback" not in result.stderr


def start_two(folder: pathlib.Path, word: str = "stepping") -> list[subprocess.Popen]:
    """Both are in their loops, or where they say another word."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [start(folder, index=index, count=2, port=port) for index in range(2)]
    for index in range(2):
        wait_for(folder / f"{word}_{index}", *processes)
    return processes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_save_the_same_step(tmp_path, number):
    """Only one is told, and one is twice as slow."""
    processes = start_two(tmp_path)
    processes[1].send_signal(number)
    wait_for(tmp_path / "saving_1", *processes)
    processes[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=60) for process in processes]
    steps = {out.partition("step ")[2] for out, _ in said}
    assert len(steps) == 1 and "is saved" in steps.pop(), said
    assert [process.returncode for process in processes] == [0, 130 if number == signal.SIGINT else 0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_before_the_first_step_one_of_two_waits_for_nobody(tmp_path, number, code):
    """Nor does the other, which is told nothing."""
    (tmp_path / "load").touch()
    processes = start_two(tmp_path, "loading")
    processes[1].send_signal(number)
    (out, _), (_, errors) = processes[1].communicate(timeout=30), processes[0].communicate(timeout=30)
    assert [process.returncode for process in processes] == [1, code]
    assert "ended before its first step" in out and "process 1 of this run was lost" in errors


def test_a_lost_process_ends_the_other(tmp_path):
    """Though that one is in no operation of both."""
    first, second = start_two(tmp_path)
    second.kill()
    _, errors = first.communicate(timeout=30)
    assert first.returncode == 1
    own = [line for line in errors.splitlines() if not line.startswith("[Gloo]")]
    assert own == ["error: process 1 of this run was lost, or failed: see what it said; start all again to go on"]
    second.communicate()
