"""What a run tells its user: a progress bar, metrics.jsonl, TensorBoard events and pictures."""

import contextlib
import io
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich import progress
from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pea_jax.errors import PeaError
from pea_jax.whole_files import whole

# A log has no width of its own. Captions and paths are told as they are: "[/b]" is no markup, ":cat:" no emoji.
console = Console(width=None if sys.stdout and sys.stdout.isatty() else 120, markup=False, emoji=False)


def spare_letters() -> None:
    """A letter that the screen's encoding lacks is shown as a question mark, and ends no run."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def track(sequence: Sequence[Any], description: str) -> Iterable[Any]:
    """`sequence`, with a progress bar while it is gone through."""
    return progress.track(sequence, description=description, console=console)


@contextlib.contextmanager
def counting(total: int, description: str) -> Iterator[Callable[[int], None]]:
    """A progress bar; what is given moves it by a number."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


class Report:
    """Progress and logs of one training run in `workdir`; a context manager. Only one of several processes `writes`.

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
        writes: bool = True,
    ):
        self._path, self._writes = workdir / "metrics.jsonl", writes
        if writes:
            with writing(workdir):
                _drop_entries_after(self._path, first_step)
                self._file = self._path.open("a")
                self._events = _Events(workdir / "tensorboard", first_step + 1 if first_step else 0)
        self._batch_size, self._peak_flops = batch_size, peak_flops
        self.restart_clock(first_step)
        self._bar = _Bar()
        self._task = self._bar.add_task("train", total=num_steps, completed=first_step, speed="")

    def __enter__(self) -> "Report":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):  # the screen may be a file on a full disk; the rest was written before
            self._bar.stop()
        if self._writes:
            with contextlib.suppress(OSError):
                self._file.close()
                self._events.close()

    def advance(self, step: int, flops: float = 0.0, executed: float = 0.0) -> None:
        """Move the bar.

        Args:
          step: the one that was just started.
          flops: its operations.
          executed: the same with those that are done again to save memory.
        """
        self._bar.update(self._task, completed=step)
        self._flops += flops
        self._executed += executed

    def restart_clock(self, step: int) -> None:
        """Images per second are those after `step`; leaves out what was not training, as pictures."""
        self._clock, self._clock_step = time.perf_counter(), step
        self._flops = self._executed = 0.0

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
        """Log one step to the file, TensorBoard and the bar.

        Raises:
          PeaError: the disk is full.
        """
        if not self._writes:
            return
        entry = dict(step=step, **values, **self._speed(step))
        with writing(self._path):
            print(json.dumps(entry), file=self._file, flush=True)
        self._events.scalars(step, entry)
        hidden = ("step", "gradient_norm", "learning_rate", "images_per_second")
        self._bar.terms = [f"{name} {value:.4g}" for name, value in entry.items() if name not in hidden]
        self._bar.update(self._task, speed=f"{entry['images_per_second']:.4g} images/s")

    def picture(self, name: str, step: int, pixels: np.ndarray) -> None:
        """Show an `[H, W, 3]` uint8 picture in TensorBoard."""
        if self._writes:
            self._events.picture(step, name, pixels)

    def _speed(self, step: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._clock
        speed = dict(images_per_second=round((step - self._clock_step) * self._batch_size / seconds, 2))
        if self._peak_flops:
            speed["mfu"] = round(self._flops / seconds / self._peak_flops, 4)
            if self._executed > self._flops:
                speed["hfu"] = round(self._executed / seconds / self._peak_flops, 4)
        return speed


class _Bar(Progress):
    """A training's progress on one line, and below it what was measured last: one line has no room for both."""

    def __init__(self):
        self.terms: list[str] = []
        super().__init__(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),  # what the others leave
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.terms:
            yield Columns(self.terms, padding=(0, 2))


class _Events:
    """A TensorBoard file, written in this thread: tensorboardX's own writes in another, and hangs on a full disk."""

    def __init__(self, folder: pathlib.Path, first_step: int):
        with _left_out("torch"):  # which it imports where it is installed: seconds and 200 MB for nothing
            from tensorboardX import event_file_writer, summary
            from tensorboardX.proto import event_pb2

        self._folder, self._summary, self._event = folder, summary, event_pb2.Event
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = event_file_writer.EventsWriter(str(folder / "events"))
        # Drops what a killed run wrote from this step on: of one that begins anew also the pictures before its first.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(first_step, session_log=start)
        self.close = self._writer.close

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._write(step, summary=self._summary.scalar(name, value))

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._write(step, summary=self._summary.image(name, pixels, dataformats="HWC"))

    def _write(self, step: int, **content: Any) -> None:
        with writing(self._folder):
            self._writer.write_event(self._event(step=step, wall_time=time.time(), **content))
            self._writer.flush()


@contextlib.contextmanager
def _left_out(module: str) -> Iterator[None]:
    """Within, a module that is not loaded yet is as one that is not installed."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # what Python's import takes for "there is none"
    try:
        yield
    finally:
        del sys.modules[module]


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Around what a run writes to `path`.

    Raises:
      PeaError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise PeaError(
            f"{path}: cannot be written ({reason}); make room there, and the same command goes on from the last "
            "checkpoint"
        ) from error


def _drop_entries_after(path: pathlib.Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for i, line in enumerate(lines, 1) if line.endswith(b"\n") and _step_of(line, f"{path}:{i}") <= step]
    with whole(path) as partial:
        partial.write_bytes(b"".join(kept))


def _step_of(line: bytes, where: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError) as error:
        advice = "remove this line, and the same command goes on"
        raise PeaError(f"{where}: not what a run writes there; {advice}") from error
