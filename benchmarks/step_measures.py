"""What `step.py` measures, each in processes of the sides."""

import argparse
import contextlib
import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.largest import largest
from benchmarks.process import Failed, Process
from benchmarks.step_rows import OURS, Rows
from benchmarks.step_sides import environment, is_cached, make_side
from benchmarks.step_work import Bucket, Work


@dataclasses.dataclass
class Comparison:
    """Sides on the same work. `mix` says how often each bucket comes, the most frequent first."""

    work: Work
    rows: Rows
    bucket: Bucket
    mix: dict[Bucket, float]
    rounds: int
    steps: int
    deadline: float
    cache: str
    operations: dict[tuple[Bucket, bool], float] = dataclasses.field(default_factory=dict)  # of our own steps

    def speed(self, sides: Sequence[str], buckets: Sequence[Bucket]) -> None:
        """Seconds and memory of a step: all `sides` alive, in turns, bucket by bucket."""
        with contextlib.ExitStack() as stack:
            processes = {side: stack.enter_context(self._process(side)) for side in sides}
            for side, process in list(processes.items()):
                with self._failing(processes, side, measure="matmul"):
                    self._describe(side, process)
            for bucket in buckets:
                self._in_turns(processes, bucket)

    def _describe(self, side: str, process: Process) -> None:
        device = process.call("device")
        small = "cpu" in device["name"].lower()
        rate = process.call("matmul_rate", 2048 if small else 8192)
        self.rows.add(measure="matmul", side=side, device=device["name"], rate=rate)

    def _in_turns(self, processes: dict[str, Process], bucket: Bucket) -> None:
        rounds: dict[str, list[dict[str, float]]] = {}
        prepared: dict[str, dict[str, Any]] = {}
        alive, work = dict(processes), (bucket, self.work.batch_size)
        for side, process in list(alive.items()):
            with self._failing(alive, side, measure="step", bucket=bucket):
                prepared[side] = process.call("prepare", *work)
                if "operations" in prepared[side]:
                    self.operations[bucket, is_cached(side)] = prepared[side]["operations"]
                rounds[side] = [process.call("round", *work, self.steps)]  # should the time end before the next turn
        for _ in range(self.rounds - 1):
            for side, process in list(alive.items()):
                with self._failing(alive, side, measure="step", bucket=bucket):
                    rounds[side].append(process.call("round", *work, self.steps))
        for side, measured in rounds.items():
            self._add(side, bucket, prepared[side], measured)

    def _add(self, side: str, bucket: Bucket, prepared: dict[str, Any], rounds: Sequence[dict[str, float]]) -> None:
        times = [each["seconds"] for each in rounds]
        seconds = statistics.median(times)
        figures: dict[str, Any] = dict(images_per_second=self.work.batch_size / seconds)
        rates = [row["rate"] for row in self.rows.of("matmul")]
        operations = self.operations.get((bucket, is_cached(side)))
        if operations and rates:
            figures["mfu"] = operations / seconds / max(rates)
        self.rows.add(
            measure="step",
            side=side,
            bucket=bucket,
            seconds=seconds,
            **figures,
            rounds=times,
            peak=max(each["peak"] for each in rounds),
            preparing=prepared,
        )

    def start(self, side: str) -> None:
        """Seconds from the start of a process to its first step, after another has filled the compilation cache."""
        for cache in ("warm",) if self.rows.of("step", side=side) else ("cold", "warm"):
            with self._process(side) as process, self._failing({}, side, measure="start"):
                prepared = process.call("prepare", self.bucket, self.work.batch_size, 1)
                seconds = process.seconds()
                self.rows.add(measure="start", side=side, cache=cache, seconds=seconds, preparing=prepared["seconds"])

    def largest_batch(self, side: str, *, trials: int, capacity: float | None) -> None:
        """The most rows of the bucket that a side trains on, alone on the device."""
        with (
            self._process(side, alone=True) as process,
            self._failing({}, side, measure="largest batch", bucket=self.bucket),
        ):
            device = process.call("device")
            limit = capacity or device["capacity"]
            if limit is None:
                raise Failed("the memory of this device is not known")
            tried: dict[int, int] = {}

            def attempt(rows: int) -> int | None:
                try:
                    tried[rows] = process.call("try_batch", self.bucket, rows)
                except Failed as failed:
                    if not failed.out_of_memory:
                        raise
                    return None
                return tried[rows] if tried[rows] <= limit else None

            first = self.work.batch_size
            if attempt(first) is None:
                raise Failed(f"out of memory at a batch of {first}")
            found = dict(rows=first, peak=tried[first], fixed=device["frozen"] or 0, capacity=limit)
            best, failed_at = largest(attempt, **found, trials=trials)
            self.rows.add(
                measure="largest batch", side=side, bucket=self.bucket, rows=best, too_many=failed_at, tried=tried
            )

    @contextlib.contextmanager
    def _process(self, side: str, *, alone: bool = False) -> Iterator[Process]:
        variables = environment(side, self.cache, alone=alone)
        process = Process(make_side, side, self.work, deadline=self.deadline, environment=variables)
        try:
            yield process
        finally:
            process.close()

    @contextlib.contextmanager
    def _failing(self, alive: dict[str, Process], side: str, **row: Any) -> Iterator[None]:
        """A side that fails is a row, and takes no further part."""
        try:
            yield
        except Failed as failed:
            alive.pop(side, None)
            self.rows.add(**row, side=side, failed=str(failed))


def _speed(comparison: Comparison, args: argparse.Namespace) -> None:
    for group in args.groups:
        comparison.speed(group, [comparison.bucket])


def _mix(comparison: Comparison, args: argparse.Namespace) -> None:
    comparison.speed(args.mixed, [bucket for bucket in comparison.mix if bucket != comparison.bucket])


def _start(comparison: Comparison, args: argparse.Namespace) -> None:
    comparison.start(OURS)


def _largest(comparison: Comparison, args: argparse.Namespace) -> None:
    capacity = 1e9 * args.capacity if args.capacity else None
    for side in args.searched:
        comparison.largest_batch(side, trials=args.trials, capacity=capacity)


MEASURES = {"speed": _speed, "mix": _mix, "start": _start, "largest": _largest}
