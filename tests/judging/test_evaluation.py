"""The command on prompts and on folders: tiny base model, tiny CLIP, adapters of random numbers."""

import json
import pathlib
import re

import pytest
from flax import nnx

from pea_jax.adapter import AdapterDims, PEAdapter
from tests import commands
from tests.judging import clips, published_clips
from tests.test_processes import start_two

SYSTEMS = ["English teacher", "translation + teacher", "adapter", "other"]
PROMPTS = [
    dict(id="apple", category="general", prompt="красное яблоко", english="red apple"),
    dict(id="dog", category="general", prompt="собака", english="dog"),
    dict(id="tea", category="culture", prompt="самовар"),
]


@pytest.fixture(scope="module")
def place(world, tmp_path_factory) -> pathlib.Path:
    """Two adapters, two CLIPs, prompts and their translations."""
    folder = tmp_path_factory.mktemp("judging")
    rule = dict(id=str(world[1]["text_encoder.id"]), context_length=16, prefix="")
    config = dict(base_model=str(world[1]["base_model"]), text_encoder=rule)
    for seed in range(2):
        adapter = PEAdapter(AdapterDims(32, 16, 20, 40), rngs=nnx.Rngs(seed))
        adapter.save_pretrained(folder / f"adapter{seed}", config, "card")
    clips.save_clip(folder / "clip")
    published_clips.save(folder / "ruclip", "ruCLIP")
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    (folder / "english.txt").write_text("a red apple\na dog\na samovar\n")
    return folder


def evaluate(world, place: pathlib.Path, out: pathlib.Path, **judges: object):
    flags = dict(config=commands.CONFIG, adapter=place / "adapter0", compare=f"other={place / 'adapter1'}")
    flags |= dict(prompts=place / "prompts.jsonl", translations=place / "english.txt", seeds="0,5")
    flags |= dict(clip=place / "ruclip", out=out)
    fields = world[1] | {"evaluation.batch_size": 1}  # the bits of a picture are those of its batch's size
    return commands.run_forked(commands.command("evaluate", fields, **flags, **judges))


def test_systems_side_by_side(world, place, tmp_path):
    (place / "reference").mkdir()
    for i, picture in enumerate(clips.pictures(4)):
        picture.save(place / "reference" / f"{i}.png")
    out = tmp_path / "report.json"
    result = evaluate(world, place, out, pick_score=place / "clip", reference=place / "reference")
    assert result.returncode == 0, result.stderr
    made = json.loads(out.read_text())
    scores = {(r["metric"], r["category"], r["system"]): r for r in made["results"]}
    assert [name for metric, category, name in scores if (metric, category) == ("CLIPScore", "all")] == SYSTEMS
    assert {metric for metric, _, _ in scores} == {"CLIPScore", "PickScore"}
    observations = {key: r["score"]["observations"] for key, r in scores.items()}
    assert observations["CLIPScore", "all", "English teacher"] == 2
    assert observations["CLIPScore", "all", "adapter"] == 3
    assert observations["CLIPScore", "culture", "other"] == 1
    assert scores["PickScore", "all", "other"]["difference"]["observations"] == 2
    distances = [(d["metric"], d["system"], d["pictures"], d["reference"]) for d in made["distances"]]
    assert distances == [("CMMD", name, 4 if name == SYSTEMS[0] else 6, 4) for name in SYSTEMS]
    html, markdown = (out.with_suffix(suffix).read_text() for suffix in (".html", ".md"))
    assert html.count("data:image/jpeg;base64,") == 4 * 3 - 1 and "самовар" in html
    links = re.findall(r"!\[\]\((.*?)\)", markdown)
    assert len(links) == 11 and all((tmp_path / link.replace("%20", " ")).is_file() for link in links)
    assert "difference to English teacher" in markdown and "CMMD" in result.stdout
    _goes_on(world, place, out)


def _goes_on(world, place: pathlib.Path, out: pathlib.Path) -> None:
    """What a killed run had not drawn is drawn, from the same noise; the figures are the same."""
    made, picture = json.loads(out.read_text())["results"], out.with_suffix("") / "other" / "5" / "00002.png"
    pixels, before = picture.read_bytes(), (picture.parent / "00001.png").stat().st_mtime_ns
    picture.unlink()
    result = evaluate(world, place, out)
    assert result.returncode == 0, result.stderr
    assert picture.read_bytes() == pixels and (picture.parent / "00001.png").stat().st_mtime_ns == before
    assert json.loads(out.read_text())["results"] == [row for row in made if row["metric"] == "CLIPScore"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (dict(prompts="a.txt"), "--config is needed beside --prompts"),
        (dict(folder="a=b"), "--folder needs --reference DIR"),
        (dict(folder="a", reference="b", clip="c"), "--folder a: must be NAME=DIR"),
        (dict(folder="a=", reference="b", clip="c"), "--folder a=: must be NAME=DIR"),  # not the folder one stands in
        (dict(adapter="", config=commands.CONFIG), "--adapter: is empty; say which, or leave it out"),
        (dict(folder="a=b", reference="b", clip="c", inception=""), "--inception: is empty"),
        (dict(prompts="nowhere.txt", config=commands.CONFIG), "nowhere.txt: no such file"),
        (dict(prompts="assets/prompts/ru.jsonl", config=commands.CONFIG, seeds="1,x"), "--seeds 1,x: must be whole"),
        (dict(clip="c"), "--clip judges pictures of prompts or in folders"),
        (dict(prompts="a.txt", folder="a=b"), "--prompts and --folder: give one of them"),
        (dict(translator="a", config=commands.CONFIG), "--translator: is of a prompt set; give --prompts"),
        (dict(folder="a=b", reference="b", clip="c", pick_score="d"), "--pick_score and --image_reward judge"),
        (dict(prompts="a.txt", reference="b"), "--reference needs --inception FILE"),
        (dict(folder="a=b", reference="b", clip="c", adapter="d"), "--adapter and --folder: pictures that are there"),
        (dict(folder="a=b", reference="b", clip="c", config=commands.CONFIG), "--config and --folder: pictures that"),
        (dict(folder="a=nowhere", reference="b", clip="c"), "nowhere: no such folder of pictures"),
    ],
)
def test_wrong_flags_are_named(tmp_path, flags, said):
    result = commands.run_forked(commands.command("evaluate", {}, **flags, out=tmp_path / "report.json"))
    assert result.returncode == 1 and f"error: {said}" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["report", "report.md", "report.html"])
@pytest.mark.parametrize("flags", [dict(prompts="a.txt", config=commands.CONFIG), dict(folder="a=b", reference="b")])
def test_a_report_is_not_written_over_another_file_of_it(tmp_path, name: str, flags: dict[str, str]):
    """Without ending it would be the folder of the pictures."""
    result = commands.run_forked(commands.command("evaluate", {}, **flags, out=tmp_path / name))
    assert result.returncode == 1
    assert result.stderr == f"error: --out {tmp_path / name}: the report is JSON; name {tmp_path / 'report.json'}\n"


@pytest.mark.parametrize("name", ["a b", "a_b"])  # the latter's pictures would lie in one folder with the former's
def test_a_name_that_is_there_already_is_refused(tmp_path, name: str):
    flags = dict(folder="a b=x", reference="b", clip="c", out=tmp_path / "report.json")
    result = commands.run_forked([*commands.command("evaluate", {}, **flags), f"--folder={name}=y"])
    assert result.returncode == 1
    assert result.stderr == f"error: --folder {name}=y: there is a b=x already; give another name\n"


def test_judges_are_looked_for_before_anything_is_drawn(world, place, tmp_path):
    result = evaluate(world, place, tmp_path / "report.json", image_reward=tmp_path / "absent.pt")
    assert result.returncode == 1 and "absent.pt: no such file; ImageReward is to be had with" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # two minutes: three processes, each of which compiles
def test_two_processes_share_the_drawing(world, place, tmp_path):
    flags = dict(config=commands.CONFIG, adapter=place / "adapter0", prompts=place / "prompts.jsonl", seeds="0,5")
    flags |= dict(translations=place / "english.txt", clip=place / "clip")
    assert commands.run(commands.command("evaluate", world[1], **flags, out=tmp_path / "one.json")).returncode == 0
    both = start_two(commands.command("evaluate", world[1], **flags, out=tmp_path / "two.json"))
    said = [process.communicate(timeout=280) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "CLIPScore" in said[0][0] and "CLIPScore" not in said[1][0]
    one, two = (json.loads((tmp_path / name).read_text())["results"] for name in ("one.json", "two.json"))
    drawn = sorted(path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*.png"))
    assert drawn == sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png"))
    assert [(r["system"], r["category"]) for r in two] == [(r["system"], r["category"]) for r in one]
    for ours, theirs in zip(two, one, strict=True):
        assert ours["score"]["value"] == pytest.approx(
            theirs["score"]["value"], abs=0.5
        )  # a rounded pixel here and there


def test_folders(place, tmp_path):
    for name, seed in (("ours", 1), ("theirs", 2)):
        (tmp_path / name).mkdir()
        for i, picture in enumerate(clips.pictures(3, seed)):
            picture.save(tmp_path / name / f"{i}.png")
    flags = dict(folder=f"ours={tmp_path / 'ours'}", reference=tmp_path / "theirs", clip=place / "clip")
    result = commands.run_forked(commands.command("evaluate", {}, **flags, out=tmp_path / "report.json"))
    assert result.returncode == 0, result.stderr
    (only,) = json.loads((tmp_path / "report.json").read_text())["distances"]
    assert (only["metric"], only["system"], only["pictures"]) == ("CMMD", "ours", 3) and only["value"] > 0
