"""What a run tells its user: a progress bar, metrics.jsonl, TensorBoard events and pictures."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pea_jax.errors import PeaError

console = Console(width=None if sys.stdout.isatty() else 120)  # a log has no width of its own


def track(sequence: Sequence[Any], description: str) -> Iterable[Any]:
    """`sequence`, with a progress bar while it is gone through."""
    return progress.track(sequence, description=description, console=console)


class Report:
    """Progress and logs of one training run in `workdir`; a context manager.

    Entries of `metrics.jsonl` after `first_step` (a run that was killed later than its last checkpoint) are dropped, so
    that every step is in the file once.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        first_step: int,
        num_steps: int,
        batch_size: int,
        peak_flops: float | None = None,
        flops_per_step: float | None = None,
    ):
        from tensorboardX import SummaryWriter  # imports PyTorch where it finds it: seconds that no other command needs

        self._path = workdir / "metrics.jsonl"
        _drop_entries_after(self._path, first_step)
        self._file = self._path.open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)
        self._batch_size, self._flops = batch_size, (flops_per_step, peak_flops)
        self._clock: float | None = None
        self._clock_step = first_step
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("train", total=num_steps, completed=first_step, text="")

    def __enter__(self) -> "Report":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()
        self._file.close()
        self._events.close()

    def advance(self, step: int) -> None:
        """Move the bar; the first step, which compiles, starts the clock of images per second."""
        self._bar.update(self._task, completed=step)
        if self._clock is None:
            self.restart_clock(step)

    def restart_clock(self, step: int) -> None:
        """Leave out what was not training: compilation, pictures."""
        self._clock, self._clock_step = time.perf_counter(), step

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """Stop a run that has diverged.

        Raises:
          PeaError: some value is not finite; the step and the term are named.
        """
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            advice = "lower the learning rate or clip the gradient"
            raise PeaError(f"step {step}: {', '.join(broken)} is not finite; {advice}")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log one step to the file, TensorBoard and the bar."""
        entry = dict(step=step, **values, **self._speed(step))
        print(json.dumps(entry), file=self._file, flush=True)
        for name, value in entry.items():
            self._events.add_scalar(name, value, step)
        hidden = ("step", "gradient_norm", "learning_rate")
        shown = [f"{name} {value:.4g}" for name, value in entry.items() if name not in hidden]
        self._bar.update(self._task, text="  ".join(shown))

    def picture(self, name: str, step: int, pixels: np.ndarray) -> None:
        """Show an `[H, W, 3]` uint8 picture in TensorBoard."""
        self._events.add_image(name, pixels, step, dataformats="HWC")

    def _speed(self, step: int) -> dict[str, float]:
        if self._clock is None or step <= self._clock_step:
            return {}
        steps_per_second = (step - self._clock_step) / (time.perf_counter() - self._clock)
        speed = dict(images_per_second=round(steps_per_second * self._batch_size, 2))
        flops, peak = self._flops
        if flops and peak:
            speed["mfu"] = round(steps_per_second * flops / peak, 4)
        return speed


def _drop_entries_after(path: pathlib.Path, step: int) -> None:
    if not path.exists():
        return
    complete = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(line for line in complete if json.loads(line)["step"] <= step))
