"""What `step.py` has measured so far: kept in a file row by row, shown as a table."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from benchmarks import record
from benchmarks.step_work import Bucket

OURS, TUNED, PUBLISHED = "pea_jax", "tuned", "published"


@dataclasses.dataclass
class Rows:
    """Rows `dict(measure=..., side=..., ...)`; each is on disk before the next is measured."""

    path: pathlib.Path | None
    about: dict[str, Any]
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def update(self, measure: str, **row: Any) -> None:
        """As `add`, in place of what was known of the same side and bucket so far."""
        same = dict(measure=measure, side=row["side"], bucket=row["bucket"])
        self.rows = [other for other in self.rows if "failed" in other or not same.items() <= other.items()]
        self.add(measure=measure, **row)

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        print("  ".join(f"{name}={_short(value)}" for name, value in row.items()), flush=True)
        if self.path:
            record.write(self.path, dict(self.about, rows=self.rows))

    def of(self, measure: str, **fields: Any) -> list[dict[str, Any]]:
        """The rows of a measure that did not fail."""
        wanted = dict(fields, measure=measure)
        return [row for row in self.rows if "failed" not in row and wanted.items() <= row.items()]

    def one(self, measure: str, **fields: Any) -> dict[str, Any] | None:
        """The latest of them."""
        return (self.of(measure, **fields) or [None])[-1]

    def seconds(self, side: str, bucket: Bucket) -> float | None:
        row = self.one("step", side=side, bucket=bucket)
        return row["seconds"] if row else None

    def of_mix(self, sides: Iterable[str], weights: dict[Bucket, float]) -> dict[str, Any] | None:
        """Images a second of each side on buckets drawn as often as `weights` say, of those that all have measured."""
        times = {side: {bucket: self.seconds(side, bucket) for bucket in weights} for side in sides}
        common = [bucket for bucket in weights if all(time[bucket] for time in times.values())]
        if len(common) < 2:
            return None
        share = sum(weights[bucket] for bucket in common)
        rates = {
            side: self.about["batch_size"] * share / sum(weights[bucket] * time[bucket] for bucket in common)
            for side, time in times.items()
        }
        return dict(share=share, buckets=len(common), images_per_second=rates)


def table(rows: Rows, sides: list[str], bucket: Bucket) -> Table:
    """One line a side, on the first bucket."""
    columns = ("side", "ms a step", "rounds", "images/s", f"against {OURS}", "MFU", "peak memory", "largest batch")
    result, ours = Table(*columns), rows.seconds(OURS, bucket)
    for side in sides:
        row, most = rows.one("step", side=side, bucket=bucket), rows.one("largest batch", side=side)
        found = str(most["rows"]) if most else ""
        if row is None:
            failed = [r["failed"] for r in rows.rows if r["side"] == side and "failed" in r]
            result.add_row(side, failed[-1] if failed else "not measured", *[""] * 5, found)
            continue
        result.add_row(
            side,
            f"{1000 * row['seconds']:.0f}",
            ", ".join(f"{1000 * seconds:.0f}" for seconds in row["rounds"]),
            f"{row['images_per_second']:.1f}",
            f"{row['seconds'] / ours:.2f}" if ours else "",
            f"{100 * row['mfu']:.0f}%" if row.get("mfu") else "",
            f"{row['peak'] / 1e9:.1f} GB",
            found,
        )
    return result


def times_as_fast(rows: Rows, ours: str, theirs: Iterable[str], bucket: Bucket) -> float | None:
    """`ours` against the fastest of `theirs`."""
    times = [seconds for side in theirs if (seconds := rows.seconds(side, bucket))]
    own = rows.seconds(ours, bucket)
    return min(times) / own if own and times else None


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
