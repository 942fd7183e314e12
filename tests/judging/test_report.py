"""The report's three forms."""

import json
import pathlib

from PIL import Image

from pea_jax.judging.comparison import Result
from pea_jax.judging.distances import Distance
from pea_jax.judging.prompts import Prompt
from pea_jax.judging.report import PictureRow, as_html, as_json, as_markdown, choose_rows
from pea_jax.judging.tables import tables
from pea_jax.metrics.intervals import Estimate

ESTIMATE = Estimate(31.416, 30.0, 32.5, 40)
RESULTS = [
    Result("CLIPScore", "all", "teacher", ESTIMATE, None),
    Result("CLIPScore", "all", "<b>|", ESTIMATE, Estimate(-1.0, -2.0, 0.5, 38)),
]
DISTANCES = [Distance("FID", "teacher", 12.345, None, 40, 50), Distance("KID", "teacher", 0.01234, 0.002, 40, 50)]


def rows(tmp_path: pathlib.Path) -> list[PictureRow]:
    path = tmp_path / "a (b #1" / "0.png"
    path.parent.mkdir()
    Image.new("RGBA", (600, 300), "red").save(path)
    prompt = Prompt("кот &\n<кошка>", "a cat", "animals", "1")
    return [PictureRow(prompt, {"teacher": path, "<b>|": None})]


def test_json_has_every_figure():
    made = json.loads(json.dumps(as_json(RESULTS, DISTANCES, dict(seeds=[0]))))
    assert made["results"][0]["score"] == dict(value=31.416, low=30.0, high=32.5, observations=40)
    assert made["results"][0]["difference"] is None and made["results"][1]["difference"]["value"] == -1
    assert made["distances"][1]["spread"] == 0.002 and made["seeds"] == [0]


def test_markdown(tmp_path: pathlib.Path):
    text = as_markdown("T", tables(RESULTS, DISTANCES), rows(tmp_path), tmp_path / "out", ["Of 8.", "Not <b>."])
    assert "| all (40) | <b>\\| | 31.42 (30.00 to 32.50) | -1.00 (-2.00 to 0.50) |" in text
    assert "| KID | teacher | 0.0123 ± 0.0020 over subsets | 40 | 50 |" in text
    assert text.startswith("# T\n\nOf 8. Not <b>.\n\n## CLIPScore\n")
    assert "![](../a%20%28b%20%231/0.png)" in text
    table = [line for line in text.splitlines() if line.startswith("| кот &amp; &lt;кошка&gt;<br>a cat<br>animals |")]
    assert len(table) == 1 and table[0].count("|") == 4
    assert "| prompt | teacher | <b>\\| |\n| --- | --- | --- |\n" in text


def test_html_stands_alone(tmp_path: pathlib.Path):
    made = rows(tmp_path)
    text = as_html("T <1>", tables(RESULTS, DISTANCES), made, ["Of 8.", "Not <b>."])
    made[0].paths["teacher"].unlink()
    assert "<p>Of 8. Not &lt;b&gt;.</p>" in text
    assert "T &lt;1&gt;" in text and "<td>&lt;b&gt;|</td>" in text and "<кошка>" not in text
    assert text.count("data:image/jpeg;base64,") == 1 and "src=" in text and "http" not in text
    assert '<td><div dir="auto">кот &amp; &lt;кошка&gt;</div><div dir="auto">a cat</div>' in text
    assert "div { min-width: 15em; overflow-wrap: anywhere }" in text  # beside many pictures; tags without spaces


def test_rows_are_spread_over_the_file():
    made = [PictureRow(Prompt(str(i), None, "", str(i)), {}) for i in range(80)]
    assert [row.prompt.id for row in choose_rows(made, 4)] == ["0", "20", "40", "60"]
    assert choose_rows(made[:3], 4) == made[:3] and choose_rows(made, 0) == []
