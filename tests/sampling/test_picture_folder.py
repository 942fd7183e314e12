"""A folder of pictures that is drawn in several goes; a stand-in draws."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.sampling.picture_folder import PictureFolder, draw_folder
from pea_jax.sampling.pipeline import Sampling
from pea_jax.sampling.prompt_drawing import drawings
from pea_jax.sampling.prompt_files import Prompt, read_prompts
from tests.sampling.stand_ins import Conditioner, Pipeline

PROMPTS = [Prompt(letter, category="letters" if letter < "d" else None) for letter in "abcdefg"]
WANTED = drawings(PROMPTS, negative_prompt="ugly", seeds=[5], width=8, height=8)


def draw(path: pathlib.Path, pipeline: Pipeline, wanted=WANTED, **options) -> list[pathlib.Path]:
    sampling = Sampling(**{"batch_size": 2} | options)
    return draw_folder(path, pipeline, Conditioner(), wanted, sampling, settings=dict(adapter="x"))


def test_pictures_and_records(tmp_path):
    pictures = draw(tmp_path / "new" / "out", Pipeline())
    assert [path.name for path in pictures] == [f"0000{i}.png" for i in range(7)]
    for i, path in enumerate(pictures):
        assert (np.asarray(Image.open(path)) == [ord("abcdefg"[i]), ord("u"), 50 + i]).all()
    records = [json.loads(line) for line in (tmp_path / "new" / "out" / "metadata.jsonl").read_text().splitlines()]
    common = dict(negative_prompt="ugly", seed=5, width=8, height=8)
    assert records[2] == dict(file_name="00002.png", prompt="c", index=2, category="letters", **common)
    assert sorted(path.suffix for path in (tmp_path / "new" / "out").iterdir()) == [".json", ".jsonl"] + [".png"] * 7


def test_records_are_a_file_of_prompts_too(tmp_path):
    """The same pictures with another adapter, say; each record names the file of its own picture."""
    draw(tmp_path / "first", Pipeline())
    prompts = read_prompts(tmp_path / "first" / "metadata.jsonl")[2:]
    draw(tmp_path / "again", Pipeline(), drawings(prompts, negative_prompt="", seeds=[0], width=16, height=8))
    records = [json.loads(line) for line in (tmp_path / "again" / "metadata.jsonl").read_text().splitlines()]
    assert [record["file_name"] for record in records] == [f"0000{i}.png" for i in range(5)]
    expected = dict(prompt="c", negative_prompt="ugly", seed=5, index=0, width=16, height=8, category="letters")
    assert records[0] == dict(file_name="00000.png", **expected)


def test_what_is_there_is_not_drawn_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path, Pipeline(batches=2))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"generation.json", *(f"0000{i}.png" for i in range(4))}
    (tmp_path / "00001.png").unlink()
    (tmp_path / "00005.png.partial").write_text("of a process that was killed")
    kept = (tmp_path / "00002.png").stat().st_mtime_ns
    pipeline = Pipeline()
    pictures = draw(tmp_path, pipeline, batch_size=3)  # which changes nothing of what is drawn
    assert pipeline.drawn == 4 and (tmp_path / "00002.png").stat().st_mtime_ns == kept
    assert all((np.asarray(Image.open(path))[0, 0] == [ord("abcdefg"[i]), ord("u"), 50 + i]).all()
               for i, path in enumerate(pictures))  # fmt: skip
    assert (tmp_path / "metadata.jsonl").exists() and not list(tmp_path.glob("*.partial"))
    draw(tmp_path, again := Pipeline())
    assert again.drawn == 0


def test_processes_share_the_pictures():
    folder = PictureFolder(pathlib.Path("none"), WANTED, {})
    parts = [[each.row for each in folder.missing(part, 3)] for part in range(3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(steps=9), "drawn with steps=25, not 9"),
        (dict(scheduler="lcm"), 'drawn with scheduler="dpmsolver\\+\\+", not "lcm"'),
        (dict(wanted=WANTED[:-1]), "drawn with prompts="),
        (dict(wanted=[*WANTED[:-1], dataclasses.replace(WANTED[-1], seed=6)]), "drawn with prompts="),
    ],
    ids=["steps", "scheduler", "fewer", "seed"],
)
def test_other_pictures_are_not_mixed_in(tmp_path, change, message):
    draw(tmp_path, Pipeline())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(PeaError, match=message):
        draw(tmp_path, Pipeline(), **change)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_is_begun_that_cannot_be_drawn(tmp_path):
    odd = [dataclasses.replace(WANTED[0], height=9)]
    with pytest.raises(PeaError, match="picture size 9x8"):
        draw(tmp_path / "out", Pipeline(), [*WANTED, *odd])
    assert not (tmp_path / "out").exists()
    (tmp_path / "photo.png").touch()
    with pytest.raises(PeaError, match="holds pictures that were not drawn here"):
        draw(tmp_path, Pipeline())
    (tmp_path / "photo.png").unlink()
    for broken in ("{", "3"):
        (tmp_path / "generation.json").write_text(broken)
        with pytest.raises(PeaError, match=r"generation\.json: cannot be read"):
            draw(tmp_path, Pipeline())
