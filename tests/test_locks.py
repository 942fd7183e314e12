"""Files that one process at a time may hold."""

import contextlib
import fcntl
import subprocess
import sys
import threading

import pytest

from pea_jax import locks

HOLD = "import sys, time, pathlib; from pea_jax import locks\nwith locks.held(pathlib.Path(sys.argv[1])) as free:"


def test_a_file_is_held_until_its_process_is_killed(tmp_path):
    path = tmp_path / "file"
    arguments = [sys.executable, "-c", f"{HOLD} print(free, flush=True); time.sleep(60)", str(path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        with locks.held(path) as free:
            assert not free
        process.kill()
    with locks.held(path) as free:
        assert free


def test_it_is_waited_for_and_may_be_removed_meanwhile(tmp_path):
    path, first = tmp_path / "file", contextlib.ExitStack()
    first.enter_context(locks.held(path))
    first.callback(path.unlink)
    threading.Timer(0.5, first.close).start()
    with locks.held(path) as free:
        assert not free
    with locks.held(path, wait=60) as free, locks.held(path) as again:
        assert free and not again and path.exists()


def test_where_the_file_system_has_no_locks_all_is_free(tmp_path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_):
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.held(tmp_path / "file") as first, locks.held(tmp_path / "file") as second:
        assert first and second
