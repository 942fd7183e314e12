import numpy as np
import pytest

from pea_jax.data import read_split
from pea_jax.errors import PeaError


def test_read_split(shard):
    concepts = read_split(shard, ["en", "ru"])
    assert [concept.key for concept in concepts] == [f"{number:03d}" for number in range(23)]
    last = concepts[22]
    assert last.names == {"en": "apple 22", "ru": "яблоко 22"}
    assert last.family == "022"
    np.testing.assert_array_equal(last.pixels, np.broadcast_to(np.uint8([22, 0, 0]), (8, 8, 3)))


def test_texts_without_a_picture_are_no_concepts(shard, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"caption_ru": "щи", "caption_en": "soup"}\n')
    concepts = read_split(f"{tmp_path}/texts.jsonl {shard}", ["en", "ru"])
    assert len(concepts) == 23 and concepts[0].key == "000"


def test_pictures_of_another_size(shard):
    assert len(read_split(shard, ["en"], size=(8, 8))) == 23
    with pytest.raises(
        PeaError, match=r"a-000\.tar: sample 000: 8x8 pixels, .* config\.picture_size=\(64, 8\); make all"
    ):
        read_split(shard, ["en"], size=(64, 8))


def test_missing_language(shard):
    with pytest.raises(PeaError, match=r"a-000\.tar: sample 000: no text in field caption_it"):
        read_split(shard, ["en", "it"])
