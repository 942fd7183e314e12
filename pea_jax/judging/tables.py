"""The results as tables, written for the screen, for Markdown and for HTML alike."""

import dataclasses
import html
from collections.abc import Sequence

import rich.table

from pea_jax.judging.comparison import Result
from pea_jax.judging.distances import Distance
from pea_jax.metrics.intervals import Estimate


@dataclasses.dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def for_screen(self) -> rich.table.Table:
        table = rich.table.Table(*self.columns, title=self.title)
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join([f"## {self.title}", "", *map(markdown_row, lines), ""])

    def to_html(self) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows]
        body = "\n".join(f"<tr>{row}</tr>" for row in rows)
        return f"<h2>{html.escape(self.title)}</h2>\n<table>\n<tr>{head}</tr>\n{body}\n</table>\n"


def markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def tables(results: Sequence[Result], distances: Sequence[Distance]) -> list[Table]:
    """One a metric, and one of all distances; 95% intervals in brackets."""
    metrics = dict.fromkeys(result.metric for result in results)
    made = [_of_metric(metric, [result for result in results if result.metric == metric]) for metric in metrics]
    return made + ([_of_distances(distances)] if distances else [])


def _of_metric(metric: str, results: Sequence[Result]) -> Table:
    columns = ("prompts", "system", metric, f"difference to {results[0].system}")
    rows = [
        (f"{each.category} ({each.score.observations})", each.system, text(each.score), text(each.difference))
        for each in results
    ]
    return Table(metric, columns, rows)


def _of_distances(distances: Sequence[Distance]) -> Table:
    columns = ("distance", "system", "value", "pictures", "in the folder")
    rows = [
        (each.metric, each.system, _with_spread(each), str(each.pictures), str(each.reference)) for each in distances
    ]
    return Table("Distance to the pictures of the folder", columns, rows)


def text(estimate: Estimate | None) -> str:
    """`31.42 (30.90 to 31.95)`."""
    if estimate is None:
        return ""
    value, low, high = (f"{number:.2f}" for number in estimate[:3])
    return f"{value} ({low} to {high})"


def _with_spread(distance: Distance) -> str:
    digits = 2 if distance.metric == "FID" else 4
    spread = "" if distance.spread is None else f" ± {distance.spread:.{digits}f} over subsets"
    return f"{distance.value:.{digits}f}{spread}"
