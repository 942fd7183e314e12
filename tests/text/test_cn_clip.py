"""Chinese-CLIP from its original files: the tokenizer against BERT's first one, in plain Python."""

import pathlib

import pytest
import torch

from pea_jax.errors import PeaError
from pea_jax.text.cn_clip import load_cn_clip_tokenizer
from tests import language_clips as clips
from tests.prompts import prompts

LINES = clips.word_pieces(True)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    clips.save_vocabulary(tmp_path, LINES)
    return tmp_path


@pytest.mark.parametrize("length", [52, 64])
def test_ids(folder: pathlib.Path, length: int):
    """Special tokens in a text are text."""
    tokenizer = load_cn_clip_tokenizer(folder)
    assert (tokenizer.model_max_length, tokenizer.pad_token_id) == (52, 0)
    texts = [text for text in prompts("zh") if clips.has_settled_categories(text)]
    tokens = tokenizer.encode(texts, length)
    assert len(texts) > 180 and tokens["attention_mask"].sum(1).max() == length
    for ids, mask, text in zip(*tokens.values(), texts, strict=True):
        # As cn_clip and not as transformers: its plain tokenizer cuts these out.
        written = text.replace("[MASK]", "[ mask ]").replace("[CLS]", "[ cls ]")
        expected = [2, *clips.plain_word_pieces(written, LINES)[: length - 2], 3]
        assert ids.tolist() == expected + [0] * (length - len(expected)), text
        assert mask.sum() == len(expected)


def test_a_line_separator_is_a_token(tmp_path: pathlib.Path):
    """As in bert-base-chinese, which has U+2028 in a line of its own: later ids are the numbers of their lines."""
    clips.save_vocabulary(tmp_path, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2028", "\x85", "猫"))
    assert load_cn_clip_tokenizer(tmp_path).encode(["猫"], 4)["input_ids"].tolist() == [[2, 6, 3, 0]]


@pytest.mark.parametrize(
    ("text", "count"), [("\ue000", 1), ("\ufffd\u200b\x00", 0), ("\u3000\r\n\t", 0), ("x" * 201, 1)]
)
def test_cleaning(folder: pathlib.Path, text: str, count: int):
    """cn_clip keeps private characters, drops control characters, and gives up on words of more than 200 letters."""
    ids = load_cn_clip_tokenizer(folder).encode([text], 8)["input_ids"][0]
    assert ids.tolist() == [2, *[1] * count, 3] + [0] * (6 - count)


def test_missing_vocabulary_is_named(tmp_path: pathlib.Path):
    torch.save({}, tmp_path / "clip_cn_vit-h-14.pt")
    with pytest.raises(PeaError, match="vocab.txt: no such file; copy the one of cn_clip.* beside clip_cn_vit-h-14.pt"):
        load_cn_clip_tokenizer(tmp_path)


def test_other_files_are_refused(tmp_path: pathlib.Path):
    clips.save_vocabulary(tmp_path, ("a", "[UNK]"))
    with pytest.raises(PeaError, match=r"not a vocabulary of BERT \(no \[CLS\]\)"):
        load_cn_clip_tokenizer(tmp_path)
