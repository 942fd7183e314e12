"""What `step.py` has measured, held against what it should be."""

from collections.abc import Iterator

from benchmarks.step_rows import OURS, PUBLISHED, TUNED, Rows, times_as_fast
from benchmarks.step_work import Bucket

AGAINST_TUNED, AGAINST_PUBLISHED, ON_A_CPU = 1.2, 2.5, 1.0
MFU, MEMORY, BATCH, START = 0.5, 0.5, 2.0, 60.0


def bars(rows: Rows, bucket: Bucket, mix: dict[Bucket, float]) -> Iterator[str]:
    """One line a bar: met, missed or not measured."""
    sides = {row["side"] for row in rows.rows}
    if PUBLISHED not in sides:
        others = sorted(sides - {OURS})
        yield _least("images/s against PyTorch at its best", times_as_fast(rows, OURS, others, bucket), ON_A_CPU)
        return
    yield _least("images/s against tuned", times_as_fast(rows, OURS, [TUNED], bucket), AGAINST_TUNED)
    mixed = rows.of_mix([TUNED, OURS], mix)
    rates = mixed["images_per_second"] if mixed else {}
    name = f"images/s against tuned, {mixed['share']:.0%} of the published mix" if mixed else "the published mix"
    yield _least(name, rates[OURS] / rates[TUNED] if mixed else None, AGAINST_TUNED)
    for ours in (OURS, f"{OURS}-uncached"):
        name = f"images/s of {ours} against published"
        yield _least(name, times_as_fast(rows, ours, [PUBLISHED], bucket), AGAINST_PUBLISHED)
    own, theirs = (rows.one("step", side=side, bucket=bucket) for side in (OURS, PUBLISHED))
    yield _least("share of the measured matmul rate", (own or {}).get("mfu"), MFU)
    yield _most("peak memory against published", own["peak"] / theirs["peak"] if own and theirs else None, MEMORY)
    largest = {row["side"]: row["rows"] for row in rows.of("largest batch")}
    best = max((count for side, count in largest.items() if side.startswith(OURS)), default=None)
    both = best and largest.get(PUBLISHED)
    yield _least("largest batch against published", best / largest[PUBLISHED] if best and both else None, BATCH)
    start = rows.one("start", cache="warm")
    yield _most("seconds to the first step, warm cache", start and start["seconds"], START)


def _least(name: str, value: float | None, bar: float) -> str:
    return _line(name, value, f"at least {bar:g}", value is not None and value >= bar)


def _most(name: str, value: float | None, bar: float) -> str:
    return _line(name, value, f"at most {bar:g}", value is not None and value <= bar)


def _line(name: str, value: float | None, bar: str, met: bool) -> str:
    if value is None:
        return f"not measured: {name} ({bar})"
    return f"{'met' if met else 'MISSED'}: {name} {value:.2f} ({bar})"
