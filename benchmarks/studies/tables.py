"""Write the tables of docs/results.md from the finished runs; nothing in them is typed by hand.

    python -m benchmarks.studies.tables

A table stands between `<!-- study NAME -->` and `<!-- end of study -->`.
"""

import re
from collections.abc import Sequence
from typing import Any

from benchmarks.studies import summary
from benchmarks.studies.effects import ENGLISH, WITH_LORA
from benchmarks.studies.ledger import Ledger
from benchmarks.studies.runs import TEACHER
from benchmarks.studies.study import ROOT, SEEDS, Study, load
from pea_jax.metrics.intervals import Estimate

DOCUMENT = ROOT / "docs" / "results.md"
RESULTS = ROOT / "benchmarks" / "results" / "studies"
PLACE = re.compile(r"(<!-- study (\w+) -->\n).*?(<!-- end of study -->)", re.S)


def main() -> None:
    DOCUMENT.write_text(filled(DOCUMENT.read_text(), Ledger(RESULTS)))


def filled(text: str, ledger: Ledger) -> str:
    """The document with the table of every study that it has a place for."""
    return PLACE.sub(lambda found: found[1] + table(found[2], load(found[2]), ledger) + found[3], text)


def table(name: str, study: Study, ledger: Ledger) -> str:
    """Markdown: a row a variant, for each set of names R@1 and the distance to the teacher's pictures."""
    runs, columns = ledger.lines(name), _columns(study)
    heads = [f"{label}: {what}" for label in columns for what in ("R@1, %", "distance")]
    rows = [_cells("variant", "trained", "seeds", heads), _cells("---", "---", "---", ["---"] * len(heads))]
    teachers = dict.fromkeys(run["variant"] for run in runs if run["variant"].startswith(TEACHER))
    for label in [*teachers, *(variant.label for variant in study.variants)]:
        found = [run for run in runs if run["variant"] == label]
        rows.append(_cells(label, _trained(label, found), _seeds(label, found), _figures(label, found, columns)))
    return "\n".join([f"Names: {_counts(study, runs)}.", "", *rows, "", _missing(study, runs)]) + "\n"


def _columns(study: Study) -> list[str]:
    """The sets of results: those that are asked for, and with `effects` two more."""
    names = list(study.names)
    return names + [text.format(names[0]) for text in (ENGLISH, WITH_LORA) if study.effects]


def _figures(label: str, runs: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    if not runs:
        return ["not run"] * (2 * len(columns))
    cells = []
    for each in columns:
        has = each in runs[0]["results"]
        cells.append(_text(summary.retrieval_at_1(runs, each), 100, 1) if has else "")
        cells.append(_text(summary.distance(runs, each), 1, 3) if has and not label.startswith(TEACHER) else "")
    return cells


def _trained(label: str, runs: Sequence[dict[str, Any]]) -> str:
    return "" if label.startswith(TEACHER) or not runs else f"{runs[0]['parameters']:,}"


def _seeds(label: str, runs: Sequence[dict[str, Any]]) -> str:
    return "" if label.startswith(TEACHER) else str(len(runs))


def _counts(study: Study, runs: Sequence[dict[str, Any]]) -> str:
    counts = {label: len(runs[0]["results"][label]["ranks"]) for label in study.names} if runs else {}
    return ", ".join(f"{count} {label}" for label, count in counts.items()) or "none judged yet"


def _missing(study: Study, runs: Sequence[dict[str, Any]]) -> str:
    wanted, done = len(SEEDS) * len(study.variants), sum(not run["variant"].startswith(TEACHER) for run in runs)
    return f"{done} of {wanted} runs are done." + ("" if done >= wanted else " The command above does the others.")


def _text(estimate: Estimate, factor: float, digits: int) -> str:
    value, low, high = (f"{factor * number:.{digits}f}" for number in estimate[:3])
    return f"{value} ({low} - {high})"


def _cells(label: str, trained: str, seeds: str, rest: Sequence[str]) -> str:
    return f"| {' | '.join([label, trained, seeds, *rest])} |"


if __name__ == "__main__":
    main()
