import io
import json
import pathlib
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto import event_pb2

from pea_jax.errors import PeaError
from pea_jax.report import Report


def entries(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_one_line_a_step_with_terms_and_speed(tmp_path):
    with Report(tmp_path, first_step=0, num_steps=3, batch_size=4) as report:
        for step in (1, 2, 3):
            report.advance(step)
            report.metrics(step, dict(loss=1.0 / step, noise=0.5, learning_rate=1e-3))
        report.picture("samples", 3, np.zeros((8, 8, 3), np.uint8))
    lines = entries(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[1]["loss"] == 0.5 and lines[1]["noise"] == 0.5
    assert all(line["images_per_second"] > 0 and "mfu" not in line for line in lines)  # no peak known
    assert list((tmp_path / "tensorboard").iterdir())


def test_mfu_where_the_peak_is_known(tmp_path):
    with Report(tmp_path, first_step=0, num_steps=2, batch_size=4, peak_flops=1e9) as report:
        report.advance(1, 1e6)
        report.advance(2, 1e6)
        report.metrics(2, dict(loss=1.0))
    (line,) = entries(tmp_path)
    assert line["mfu"] == pytest.approx(line["images_per_second"] / 4 * 1e6 / 1e9, rel=0.05, abs=1e-4)
    assert "hfu" not in line


def test_hfu_where_operations_are_done_again(tmp_path):
    """As many more as are executed more."""
    with Report(tmp_path, first_step=0, num_steps=2, batch_size=4, peak_flops=1e3) as report:
        report.advance(1, 1e6, 1.25e6)
        report.advance(2, 1e6, 1.25e6)
        report.metrics(2, dict(loss=1.0))
    (line,) = entries(tmp_path)
    assert line["hfu"] == pytest.approx(1.25 * line["mfu"], rel=1e-3)


def test_resuming_drops_what_came_after_the_checkpoint_and_half_a_line(tmp_path):
    with Report(tmp_path, first_step=0, num_steps=9, batch_size=1) as report:
        for step in (1, 2, 3):
            report.metrics(step, dict(loss=float(step)))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with Report(tmp_path, first_step=2, num_steps=9, batch_size=1) as report:
        report.metrics(3, dict(loss=30.0))
    assert [(line["step"], line["loss"]) for line in entries(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_tensorboard_shows_every_step_and_picture_once(tmp_path):
    """Of a run that was killed twice: before its first checkpoint, and after that of step 2."""
    for first, last in ((0, 1), (0, 3), (2, 4)):
        with Report(tmp_path, first_step=first, num_steps=4, batch_size=8) as report:
            for step in range(first, last + 1):
                if step > first:
                    report.metrics(step, dict(loss=float(last)))
                if step in (0, 4):
                    report.picture("samples", step, np.zeros((4, 4, 3), np.uint8))
        (file,) = (tmp_path / "tensorboard").glob("events.out.*")
        file.rename(tmp_path / "tensorboard" / f"{first}-{last}")  # those of one second have one name
    losses, pictures = shown([tmp_path / "tensorboard" / name for name in ("0-1", "0-3", "2-4")])
    assert losses == [(1, 3.0), (2, 3.0), (3, 4.0), (4, 4.0)] and pictures == [0, 4]


def test_pytorch_is_not_loaded(tmp_path):
    """As tensorboardX would; it can be imported afterwards."""
    program = f"""
import importlib.util, pathlib, sys
import numpy as np
from pea_jax.report import Report
with Report(pathlib.Path({str(tmp_path)!r}), first_step=0, num_steps=1, batch_size=1) as report:
    report.metrics(1, dict(loss=1.0))
    report.picture("samples", 1, np.zeros((4, 4, 3), np.uint8))
print("torch" in sys.modules, importlib.util.find_spec("torch") is not None)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert said.stdout.endswith("False True\n"), said.stdout + said.stderr


def shown(files: list[pathlib.Path]) -> tuple[list[tuple[int, float]], list[int]]:
    """Losses and steps of pictures, as TensorBoard understands them: a start drops what is there from its step on."""
    losses, pictures = [], []
    for content in (file.read_bytes() for file in files):
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.session_log.status == event_pb2.SessionLog.START:
                losses = [(step, loss) for step, loss in losses if step < event.step]
                pictures = [step for step in pictures if step < event.step]
            losses += [(event.step, value.simple_value) for value in event.summary.value if value.tag == "loss"]
            pictures += [event.step for value in event.summary.value if value.HasField("image")]
    return losses, pictures


@pytest.mark.parametrize("line", [b"\n", b"\0\0\0\n", b"\xff\n", b"{}\n", b"3\n", b"<<<<<<< HEAD\n"])
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b'{"step": 2}\n')
    with pytest.raises(PeaError, match=r"metrics.jsonl:2: not what a run writes there; remove this line"):
        Report(tmp_path, first_step=1, num_steps=9, batch_size=1)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_bar_has_room_in_a_window(tmp_path, monkeypatch, width):
    """Step, bar, speed and times on one line; each term whole on the lines below."""
    screen = io.StringIO()
    monkeypatch.setattr("pea_jax.report.console", Console(file=screen, width=width))
    terms = dict(loss=12345.6, noise=0.12345, output=0.12345, features=0.12345, conditioning=0.12345, skipped=0)
    with Report(tmp_path, first_step=0, num_steps=50_000, batch_size=4, peak_flops=1e9) as report:
        report.advance(1)
        report.advance(20_000)
        report.metrics(20_000, terms)
    first, *others = screen.getvalue().splitlines()
    assert re.match(r"step 20000/50000 ━+.* \S+ images/s +\d+:\d\d:\d\d left [\d:-]+$", first.rstrip()), first
    shown = " ".join(others)
    assert all(f"{name} {value:.4g}" in shown for name, value in terms.items()) and "mfu " in shown
    assert max(map(len, [first, *others])) <= width


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stops_and_names_step_and_term(tmp_path, value):
    with (
        pytest.raises(PeaError, match="step 7: features is not finite"),
        Report(tmp_path, first_step=0, num_steps=9, batch_size=1) as report,
    ):
        report.check(7, dict(loss=1.0, features=value))
    assert entries(tmp_path) == []
