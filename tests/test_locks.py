"""Files that one process at a time may hold."""

import fcntl
import subprocess
import sys

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


def test_where_the_file_system_has_no_locks_all_is_free(tmp_path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_):
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.held(tmp_path / "file") as first, locks.held(tmp_path / "file") as second:
        assert first and second
