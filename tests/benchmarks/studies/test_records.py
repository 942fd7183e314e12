"""What a study does to training records: how much of it, to whom, and that nothing else changes."""

import dataclasses
import random

import numpy as np
import pytest

from benchmarks.studies import records
from benchmarks.studies.records import Records, changed, noised
from pea_jax.data import open_source
from pea_jax.data.samples import Sample

COUNT = 400
NUMBERS = [str(number) for number in range(10_000)]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Two versions of each concept."""
    return [Sample("shard.tar", f"{n}-{v}", b"", _record(n)) for n in range(COUNT) for v in (0, 1)]


def _record(number: int) -> dict:
    names = dict(caption_ru=f"имя {number}", caption_en=f"name {number}")
    return dict(names, keywords_ru=[f"слово {number}"], keywords_en=[f"word {number}"], family=str(number))


def made(samples: list[Sample], seed: int = 0, **rules) -> dict[str, dict]:
    return {sample.key: sample.record for sample in changed(samples, "ru", Records(**rules), seed)}


def test_no_rule_changes_nothing(samples):
    assert made(samples) == {sample.key: sample.record for sample in samples}


def test_a_share_keeps_whole_concepts_and_holds_every_smaller_share(samples):
    few, many = made(samples, share=0.25).keys(), made(samples, share=0.5).keys()
    assert few < many and 0.4 * COUNT < len(many) / 2 < 0.6 * COUNT
    assert {f"{n}-1" for n in range(COUNT) if f"{n}-0" in few} == {key for key in few if key.endswith("-1")}
    assert made(samples, seed=1, share=0.25).keys() != few


def test_native_samples_lose_their_english_and_nothing_else(samples):
    found = made(samples, native=0.25)
    native = [record for record in found.values() if record.get("native")]
    assert 0.2 * COUNT < len(native) / 2 < 0.3 * COUNT
    assert all("caption_en" not in record and "keywords_en" not in record for record in native)
    assert all(found[sample.key]["caption_ru"] == sample.record["caption_ru"] for sample in samples)
    assert len([record for record in found.values() if "caption_en" in record]) == len(found) - len(native)


def test_samples_can_be_named(samples):
    found = made(samples, native_keys=("3-0",), left_out=("5-0", "5-1"))
    assert [key for key, record in found.items() if record.get("native")] == ["3-0"]
    assert len(found) == 2 * COUNT - 2 and "5-0" not in found


def test_shuffled_keywords_are_those_of_others(samples):
    found = made(samples, shuffled_keywords=1.0)
    same = [sample for sample in samples if found[sample.key]["keywords_ru"] == sample.record["keywords_ru"]]
    assert len(same) < 0.05 * len(samples)
    assert all(found[sample.key]["keywords_en"] == sample.record["keywords_en"] for sample in samples)
    assert {tuple(r["keywords_ru"]) for r in found.values()} == {tuple(s.record["keywords_ru"]) for s in samples}


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5])
def test_noise_damages_as_many_words_as_asked(rate: float):
    """Of long texts a third of the damaged words is gone, a third replaced, a third has changed places."""
    text = " ".join(NUMBERS)
    words = noised(text, ["другое"], rate, random.Random(0)).split()
    assert abs(words.count("другое") / len(NUMBERS) - rate / 3) < 0.02
    assert abs(1 - len(words) / len(NUMBERS) - rate / 3) < 0.02
    kept = [int(word) for word in words if word != "другое"]
    moved = sum(b < a for a, b in zip(kept, kept[1:], strict=False))
    assert rate / 6 <= moved / len(NUMBERS) <= rate / 3  # next to a lost or another moved one it does not show


def test_noise_leaves_no_text_empty():
    assert all(noised(text, ["x"], 1.0, random.Random(seed)) for seed in range(50) for text in ("а", "а б"))


def test_written_shards_are_read_back(world, tmp_path):
    _, fields = world
    rules = Records(native=1.0, native_more="assets/emoji/flags-val-00000.tar")
    records.write(tmp_path / "data" / "new.tar", str(fields["data.train"]), "ru", rules, seed=0)
    source = open_source(str(tmp_path / "data" / "new.tar"))
    assert len(source) == 12 + 18
    assert all(source[number].record["native"] for number in range(len(source)))
    assert source[29].record["is_flag"] and source[29].pixels().shape == (64, 64, 3)


def test_pictures_of_others(samples):
    """All change places, and the texts stay."""
    numbered = [dataclasses.replace(sample, image=sample.key.encode()) for sample in samples]
    found = changed(numbered, "ru", Records(others_pictures=0.5), 0)
    assert 0.4 * COUNT < sum(sample.image != sample.key.encode() for sample in found) / 2 < 0.6 * COUNT
    found = changed(numbered, "ru", Records(others_pictures=1.0), 0)
    assert sorted(sample.image for sample in found) == sorted(sample.image for sample in numbered)
    assert sum(sample.image == sample.key.encode() for sample in found) < 0.01 * len(samples)
    assert [sample.record for sample in found] == [sample.record for sample in samples]


def test_texts_alone(world, tmp_path):
    _, fields = world
    records.write(tmp_path / "new.jsonl", str(fields["data.train"]), "ru", Records(text_alone=True), seed=0)
    before, after = open_source(str(fields["data.train"])), open_source(str(tmp_path / "new.jsonl"))
    assert [after[n].record for n in range(len(after))] == [before[n].record for n in range(len(before))]
    assert not after[0].has_picture


def test_repainted_pictures_have_the_colours_of_repaint(world, tmp_path):
    _, fields = world
    records.write(tmp_path / "new.tar", str(fields["data.train"]), "ru", Records(repainted=True), seed=0)
    before, after = open_source(str(fields["data.train"])), open_source(str(tmp_path / "new.tar"))
    for number in range(3):
        np.testing.assert_array_equal(after[number].pixels(), records.repaint(before[number].pixels()))
    np.testing.assert_array_equal(records.repaint(np.uint8([[[1, 2, 3], [9, 9, 9]]])), [[[3, 1, 2], [9, 9, 9]]])
