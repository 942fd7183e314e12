"""What `step.py` measures, each in processes of the sides."""

import argparse
import contextlib
import dataclasses
import statistics
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from benchmarks.largest import Search
from benchmarks.process import Failed, Process
from benchmarks.step_rows import OURS, Rows
from benchmarks.step_sides import environment, is_cached, is_ours, make_side
from benchmarks.step_work import Bucket, Work

Name = tuple[str, int]  # of a process: a side, and which of its processes
READY = 0.6  # of the time that is left, in which a side must prepare; the others are then measured without it


@dataclasses.dataclass
class Turn:
    """A side on a bucket."""

    side: str
    bucket: Bucket
    process: Process
    prepared: dict[str, Any] = dataclasses.field(default_factory=dict)
    rounds: list[dict[str, float]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Comparison:
    """Sides on the same work; a context, at whose end their processes end.

    `mix` says how often each bucket comes, the most frequent first.
    """

    work: Work
    rows: Rows
    bucket: Bucket
    mix: dict[Bucket, float]
    rounds: int
    steps: int
    deadline: float
    cache: str
    operations: dict[tuple[Bucket, bool], float] = dataclasses.field(default_factory=dict)  # of our own steps
    planned: dict[str, dict[int, int]] = dataclasses.field(default_factory=dict)  # of our sides: bytes by batch size
    _alive: dict[Name, Process] = dataclasses.field(default_factory=dict)

    def __enter__(self) -> "Comparison":
        return self

    def __exit__(self, *_: Any) -> None:
        self._end(self._alive)

    def speed(self, sides: Sequence[str], buckets: Sequence[Bucket], *, planned: Sequence[str] = ()) -> None:
        """Seconds and memory of a step: all `sides` in turns, on each of `buckets`, after all have prepared all.

        They prepare at the same time, which takes the processor and little of the device: ours compiles several buckets
        in threads, PyTorch has a process for each. Nothing is timed meanwhile. Beside that, the memory of `planned`,
        sides of ours, is found out for `largest_batch`.
        """
        self._begin([(side, number) for side in sides for number in range(1 if is_ours(side) else len(buckets))])
        now = time.monotonic()
        by = now + READY * (self.deadline - now)
        with self._planning(planned, by):
            turns = [turn for turn in self._preparing(sides, buckets, by) if self._is_ready(turn, by)]
        for _ in range(self.rounds):
            turns = [turn for turn in turns if self._is_measured(turn)]

    def _begin(self, names: Collection[Name]) -> None:
        """These processes are alive, as far as they can be, and no others."""
        self._end(self._alive.keys() - set(names))
        new = [name for name in names if name not in self._alive]
        self._alive |= {name: self._process(name[0]) for name in new}
        for name in new:
            self._alive[name].begin("device")
        for name in new:
            with self._failing(name[0], measure="matmul"):
                self._alive[name].result()
                continue
            self._end([name])
        for side, number in new:
            if number == 0 and (side, 0) in self._alive:
                with self._failing(side, measure="matmul"):
                    self._describe(side, self._alive[side, 0])

    def _end(self, names: Collection[Name]) -> None:
        for name in list(names):
            self._alive.pop(name).close()

    def _describe(self, side: str, process: Process) -> None:
        device = process.call("device")
        small = "cpu" in device["name"].lower()
        rate = process.call("matmul_rate", 2048 if small else 8192)
        self.rows.add(measure="matmul", side=side, device=device["name"], rate=rate)

    def _preparing(self, sides: Sequence[str], buckets: Sequence[Bucket], by: float) -> list[Turn]:
        """All that is to be measured, its preparation begun."""
        rows, turns = self.work.batch_size, []
        ours = [side for side in sides if is_ours(side) and (side, 0) in self._alive]
        for side in ours:
            self._alive[side, 0].begin("compile", [(bucket, rows) for bucket in buckets])
        for number, bucket in enumerate(buckets):
            for side in sides:
                process = self._alive.get((side, 0 if is_ours(side) else number))
                if process:
                    process.begin("prepare", bucket, rows)
                    turns.append(Turn(side, bucket, process))
        for side in ours:
            with self._failing(side, measure="compile"):
                self._alive[side, 0].result(by)
        return turns

    def _is_ready(self, turn: Turn, by: float) -> bool:
        with self._failing(turn.side, measure="step", bucket=turn.bucket):
            turn.prepared = turn.process.result(by)
            if "operations" in turn.prepared:
                self.operations[turn.bucket, is_cached(turn.side)] = turn.prepared["operations"]
            return True
        return False

    def _is_measured(self, turn: Turn) -> bool:
        with self._failing(turn.side, measure="step", bucket=turn.bucket):
            turn.rounds.append(turn.process.call("round", turn.bucket, self.work.batch_size, self.steps))
            self._add(turn)
            return True
        return False

    @contextlib.contextmanager
    def _planning(self, sides: Sequence[str], by: float) -> Iterator[None]:
        """The memory of some batches of each side is found out meanwhile; its programs are then in the cache."""
        with contextlib.ExitStack() as stack:
            processes = {side: stack.enter_context(contextlib.closing(self._process(side))) for side in sides}
            for process in processes.values():
                process.begin("plan", self.bucket, self.work.batch_size)
            yield
            for side, process in processes.items():
                with self._failing(side, measure="plan"):
                    self.planned[side] = process.result(by)
                    self.rows.add(measure="plan", side=side, bucket=self.bucket, bytes=self.planned[side])

    def _add(self, turn: Turn) -> None:
        times = [each["seconds"] for each in turn.rounds]
        seconds = statistics.median(times)
        figures: dict[str, Any] = dict(images_per_second=self.work.batch_size / seconds)
        rates = [row["rate"] for row in self.rows.of("matmul")]
        operations = self.operations.get((turn.bucket, is_cached(turn.side)))
        if operations and rates:
            figures["mfu"] = operations / seconds / max(rates)
        self.rows.update(
            measure="step",
            side=turn.side,
            bucket=turn.bucket,
            seconds=seconds,
            **figures,
            rounds=times,
            peak=max(each["peak"] for each in turn.rounds),
            preparing=turn.prepared,
        )

    def start(self, side: str) -> None:
        """Seconds from the start of a process to its first step, after another has filled the compilation cache."""
        for cache in ("warm",) if self.rows.of("step", side=side) else ("cold", "warm"):
            with contextlib.closing(self._process(side)) as process, self._failing(side, measure="start"):
                prepared = process.call("prepare", self.bucket, self.work.batch_size, 1)
                seconds = process.seconds()
                self.rows.add(measure="start", side=side, cache=cache, seconds=seconds, preparing=prepared["seconds"])

    def largest_batch(self, side: str, *, trials: int, capacity: float | None) -> None:
        """The most rows of the bucket that a side trains on, alone on the device; what fits is written at once."""
        self._end(self._alive)
        with (
            contextlib.closing(self._process(side, alone=True)) as process,
            self._failing(side, measure="largest batch", bucket=self.bucket),
        ):
            device, first = process.call("device"), self.work.batch_size
            limit = capacity or device["capacity"]
            if limit is None:
                raise Failed("the memory of this device is not known")
            sizes = self.planned.get(side)
            if is_ours(side) and not sizes:
                sizes = process.call("plan", self.bucket, first)
            search = Search(sizes or {0: device["frozen"] or 0}, limit, device.get("count", 1))
            guess: int | None = search.first(first)
            for _ in range(trials + 1):
                if guess is None:
                    break
                self._try(process, side, search, guess)
                guess = search.guess()
            if not search.best:
                raise Failed(f"out of memory at a batch of {search.failed}")

    def _try(self, process: Process, side: str, search: Search, rows: int) -> None:
        try:
            search.measured(rows, process.call("try_batch", self.bucket, rows))
        except Failed as failed:
            if not failed.out_of_memory:
                raise
            search.too_large(rows)
        if search.best:
            found = dict(rows=search.best, too_many=search.failed, sizes=dict(search.sizes))
            self.rows.update(measure="largest batch", side=side, bucket=self.bucket, **found)

    def _process(self, side: str, *, alone: bool = False) -> Process:
        variables = environment(side, self.cache, alone=alone)
        return Process(make_side, side, self.work, deadline=self.deadline, environment=variables)

    @contextlib.contextmanager
    def _failing(self, side: str, **row: Any) -> Iterator[None]:
        """A side that fails is a row."""
        try:
            yield
        except Failed as failed:
            self.rows.add(**row, side=side, failed=str(failed))


def _speed(comparison: Comparison, args: argparse.Namespace) -> None:
    planned = [side for side in args.searched if is_ours(side)] if "largest" in args.measures else []
    for number, group in enumerate(args.groups):
        comparison.speed(group, [comparison.bucket], planned=[] if number else planned)


def _mix(comparison: Comparison, args: argparse.Namespace) -> None:
    buckets = [bucket for bucket in comparison.mix if bucket != comparison.bucket]
    for start in range(0, len(buckets), args.at_once):
        if start and time.monotonic() > min(args.mix_until, comparison.deadline):
            print(f"out of time: {len(buckets) - start} buckets are not measured; ask for --measures mix alone")
            break
        comparison.speed(args.mixed, buckets[start : start + args.at_once])


def _start(comparison: Comparison, args: argparse.Namespace) -> None:
    comparison.start(OURS)


def _largest(comparison: Comparison, args: argparse.Namespace) -> None:
    capacity = 1e9 * args.capacity if args.capacity else None
    for side in args.searched:
        comparison.largest_batch(side, trials=args.trials, capacity=capacity)


MEASURES = {"speed": _speed, "mix": _mix, "start": _start, "largest": _largest}
