"""YouTokenToMe's encoding: merges worked out by hand, and what the library itself gave.

`youtokentome.json` holds a model of 400 tokens that YouTokenToMe 1.0.6 trained on the Russian names of the corpus, and
the ids that its encoder gave for `prompts("ru")`, framed and cut as ruCLIP does. The library no longer installs with
current tools, hence the file.
"""

import json
import pathlib

import numpy as np
import pytest

from pea_jax.errors import PeaError
from pea_jax.text.youtokentome import YouTokenToMe, load_youtokentome
from tests.prompts import prompts

GOLDEN = pathlib.Path(__file__).with_name("youtokentome.json")
# ▁ 4, a 5, b 6, c 7; rules: ab 8, ▁ab 9, bc 10, aa 11, abc 12 (from ab + c) and abc 13 (from a + bc)
SMALL = "4 6\n9601 4\n97 5\n98 6\n99 7\n5 6 8\n4 8 9\n6 7 10\n5 5 11\n8 7 12\n5 10 13\n1 0 2 3\n"


@pytest.fixture
def small(tmp_path: pathlib.Path) -> YouTokenToMe:
    (tmp_path / "bpe.model").write_text(SMALL)
    return YouTokenToMe.from_file(tmp_path / "bpe.model")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("  ", []),
        ("a", [4, 5]),
        ("ab", [9]),  # ab, then ▁ab
        ("abc", [9, 7]),  # rule ▁ab comes before abc
        ("cab", [4, 7, 8]),
        ("cabc", [4, 7, 12]),
        ("aaa", [4, 11, 5]),  # the leftmost pair first
        ("bbc", [4, 6, 10]),
        (" ab\tab\n", [9, 9]),
        ("ab▁ab", [9, 9]),  # the mark of a word is a space in a text
        ("xy", [4, 1]),  # unknown characters in a row are one token
        ("xay", [4, 1, 5, 1]),
        ("axb", [4, 5, 1, 6]),
        ("a\u00a0b", [4, 5, 1, 6]),  # no space for isspace() in C
    ],
)
def test_merges(small: YouTokenToMe, text: str, ids: list[int]):
    assert small.encode(text) == ids


def test_two_ids_may_spell_the_same(small: YouTokenToMe, tmp_path: pathlib.Path):
    """Which of them comes out depends on the order of the rules."""
    lines = SMALL.splitlines()
    lines[5], lines[7] = lines[7], lines[5]  # now bc comes before ab
    (tmp_path / "bpe.model").write_text("\n".join(lines))
    assert YouTokenToMe.from_file(tmp_path / "bpe.model").encode("cabc") == [4, 7, 13]
    assert small.vocab_size == 14


@pytest.mark.parametrize("length", [77, 12])
def test_ids_are_those_of_the_library(tmp_path: pathlib.Path, length: int):
    golden = json.loads(GOLDEN.read_text())
    (tmp_path / "bpe.model").write_text(golden["model"])
    (tmp_path / "config.json").write_text(json.dumps({"context_length": 77}))
    tokenizer = load_youtokentome(tmp_path)
    tokens = tokenizer.encode(prompts("ru"), length)
    cut = [ids if len(ids) <= length else [*ids[: length - 1], 3] for ids in golden["ids"]]
    expected = [ids + [0] * (length - len(ids)) for ids in cut]
    np.testing.assert_array_equal(tokens["input_ids"], expected)
    np.testing.assert_array_equal(tokens["attention_mask"].sum(1), [len(ids) for ids in cut])
    assert (tokenizer.model_max_length, tokenizer.vocab_size, tokenizer.pad_token_id) == (77, 400, 0)
    assert any(1 in ids for ids in cut) and any(len(ids) == length for ids in cut)


@pytest.mark.parametrize(
    "content",
    ["", "words", "\x80", SMALL[:-8], SMALL + "1\n", SMALL.replace("9601", "9602"), SMALL.replace("5 6 8", "5")],
)
def test_a_broken_file_is_named(tmp_path: pathlib.Path, content: str):
    path = tmp_path / "bpe.model"
    path.write_text(content, "latin-1")
    with pytest.raises(PeaError, match=f"{path}: not a YouTokenToMe model"):
        YouTokenToMe.from_file(path)


def test_a_missing_file_is_named(tmp_path: pathlib.Path):
    with pytest.raises(PeaError, match="bpe.model: no such file"):
        load_youtokentome(tmp_path)
