"""A small study from its definition to its table: what is finished is not done again, and shared between studies."""

import dataclasses
import re

import pytest

from benchmarks.studies import tables
from benchmarks.studies.ledger import Ledger, pending
from benchmarks.studies.records import Records
from benchmarks.studies.runs import TEACHER, Runner
from benchmarks.studies.study import Names, Study, Variant, load, study_names
from pea_jax import train
from pea_jax.data import open_source
from pea_jax.distill import models
from pea_jax.mesh import make_mesh


@pytest.fixture(scope="module")
def study(world) -> Study:
    folder, fields = world
    small = {name: value if isinstance(value, int) else str(value) for name, value in fields.items()}
    return Study(
        title="?",
        variants=(Variant("native", {"seed": 0}, records=Records(native=0.5)),),
        names={"seen": Names(str(folder / "train.tar"), count=3), "held out": Names(str(folder / "val.tar"))},
        corpus=f"{folder}/train.tar {folder}/val.tar",
        schedule=small,
    )


def untrained(config, workdir, preemption) -> None:
    """Stands in for the training, which has tests of its own."""
    source = open_source(config.data.train)
    assert {source[number].record.get("native", False) for number in range(12)} == {True, False}
    adapter = models.new_adapter(config, models.load_models(config, make_mesh()))
    adapter.save_pretrained(workdir / "adapter", {}, "")


def test_a_study_is_run_once(study, tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "results")
    monkeypatch.setattr(train, "train", untrained)
    Runner(tmp_path, ledger).run("one", study, (0,))
    teacher, line = ledger.lines("one")
    assert (teacher["variant"], line["variant"], line["seed"]) == (TEACHER, "native", 0)
    assert [len(found["ranks"]) for found in line["results"].values()] == [3, 4]
    assert set(teacher["results"]["seen"]["distances"]) == {0} != set(line["results"]["seen"]["distances"])
    assert not list((tmp_path / "runs").iterdir())

    monkeypatch.setattr(train, "train", None)  # nothing is trained any more
    Runner(tmp_path, ledger).run("one", study, (0,))
    other = dataclasses.replace(study, variants=(dataclasses.replace(study.variants[0], label="the same"),))
    Runner(tmp_path, ledger).run("other", other, (0,))
    assert len(ledger.lines("one")) == 2
    assert [each["variant"] for each in ledger.lines("other")] == [TEACHER, "the same"]
    assert ledger.lines("other")[1]["results"] == line["results"]

    text = tables.table("one", study, ledger)
    assert re.search(r"\| native \| [\d,]+ \| 1 \| \d", text)
    assert "3 seen, 4 held out" in text and "1 of 3 runs are done" in text


@pytest.mark.slow
@pytest.mark.parametrize("trains", ["lora", "unet"])
def test_fine_tuning_is_judged_in_english_and_with_a_lora_too(study, tmp_path, trains: str):
    ledger = Ledger(tmp_path / "results")
    tuning = Variant("tuned", {"adapter.num_layers": 1}, trains=trains)
    study = dataclasses.replace(study, variants=(Variant("adapter"), tuning), effects=True)
    Runner(tmp_path, ledger).run("one", study, (0,))
    teacher, adapter, tuned = (line["results"] for line in ledger.lines("one"))
    assert set(adapter["seen, in English"]["distances"]) == {0} != set(tuned["seen, in English"]["distances"])
    assert teacher["seen, with the LoRA"].keys() == tuned["seen, with the LoRA"].keys()
    assert teacher["seen, with the LoRA"]["ranks"] and "seen, in English" not in teacher
    assert len(list((tmp_path / "loras").iterdir())) == 1 and not list((tmp_path / "runs").iterdir())
    assert "seen, with the LoRA: R@1" in tables.table("one", study, ledger)


def test_a_line_cut_off_by_a_full_disk_is_left_out(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add("losses", dict(key="a"))
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write('{"key": "b"')
    assert ledger.lines("losses") == [dict(key="a")]
    ledger.add("losses", dict(key="c"))
    assert ledger.find("c") and not ledger.find("b")


@pytest.mark.parametrize("name", study_names())
def test_the_studies_of_the_project_can_be_run(name: str):
    study, nothing = load(name), Ledger(tables.RESULTS / "none")
    runs = list(pending(name, study, (0, 1, 2), nothing))
    assert len({study.key(variant, seed) for variant, seed in runs}) == len(runs) == 3 * len(study.variants)
    for variant in study.variants:
        assert study.config(variant, 1).seed == 1
    assert f"--study {name} " in __import__(f"configs.studies.{name}", fromlist=["_"]).__doc__


def test_keys_depend_on_what_is_run_and_not_on_its_words(study):
    key, variant = study.key(study.variants[0], 0), study.variants[0]
    assert key != study.key(variant, 1)
    assert key != study.key(dataclasses.replace(variant, fields={}), 0)
    assert key != study.key(dataclasses.replace(variant, records=Records()), 0)
    assert key == study.key(dataclasses.replace(variant, label="other words"), 0)


def test_the_tables_in_the_results_are_those_of_the_runs():
    text = tables.DOCUMENT.read_text()
    assert tables.filled(text, Ledger(tables.RESULTS)) == text, "run python -m benchmarks.studies.tables"
    assert {name for _, name, _ in tables.PLACE.findall(text)} == set(study_names())
