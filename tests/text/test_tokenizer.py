"""Tokenizers against transformers' own."""

import dataclasses
import json
import pathlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tokenizers
import transformers

from pea_jax.errors import PeaError
from pea_jax.text.tokenizer import load_tokenizer
from tests.tiny_text_models import MERGES, clip_tokenizer

E5 = pathlib.Path(__file__).resolve().parents[2] / "assets" / "multilingual-e5-small"
TEXTS = [
    "",
    "query: ",
    "red apple!",
    " Red  CAT\n",
    "a ! b!!",
    "<|endoftext|> x",
    "красное яблоко " * 9,
    "红苹果 é\n'll 12",
]


def old_files(folder: pathlib.Path, pad_token: str) -> None:
    """vocab.json, merges.txt and two settings files, as in the published folder of Stable Diffusion XL."""
    folder.mkdir()
    vocabulary = clip_tokenizer().get_vocab()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, MERGES)]))
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    specials = {
        "bos_token": {"content": "<|startoftext|>", **flags},
        "eos_token": {"content": "<|endoftext|>", **flags},
        "unk_token": {"content": "<|endoftext|>", **flags},
        "pad_token": pad_token,
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(specials))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16, "do_lower_case": True, "errors": "replace"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | specials))


def saved_files(folder: pathlib.Path, pad_token: str) -> None:
    clip_tokenizer(pad_token).save_pretrained(folder)


def undeclared_files(folder: pathlib.Path, pad_token: str) -> None:
    """The padding token is special in special_tokens_map.json alone, as in folders of transformers 4."""
    clip_tokenizer().save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["pad_token"]
    path.write_text(json.dumps(settings))
    specials = {name: settings[name] for name in ("bos_token", "eos_token", "unk_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials | {"pad_token": pad_token}))


def e5_files(folder: pathlib.Path, pad_token: str) -> None:
    folder.mkdir()
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(E5 / name, folder)


@pytest.mark.parametrize("length", [4, 16])
@pytest.mark.parametrize(
    ("write", "pad_token"),
    [
        (saved_files, "<|endoftext|>"),
        (saved_files, "!"),
        (old_files, "<|endoftext|>"),
        (old_files, "!"),
        (undeclared_files, "!"),
        (e5_files, "<pad>"),
    ],
)
def test_ids_are_those_of_transformers(tmp_path: pathlib.Path, write, pad_token: str, length: int):
    write(tmp_path / "tokenizer", pad_token)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    expected = reference(TEXTS, padding="max_length", truncation=True, max_length=length)
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    tokens = tokenizer.encode(TEXTS, length)
    np.testing.assert_array_equal(tokens["input_ids"], expected.input_ids)
    np.testing.assert_array_equal(tokens["attention_mask"], expected.attention_mask)
    assert {values.dtype for values in tokens.values()} == {np.dtype(np.int32)}
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == (pad_token, reference.pad_token_id)
    knows_all = reference.unk_token == reference.eos_token
    assert tokenizer.unk_token_id == (None if knows_all else reference.unk_token_id)
    assert tokenizer.model_max_length == (None if write is e5_files else 16)


def test_truncation_keeps_the_end_of_text(tmp_path: pathlib.Path):
    saved_files(tmp_path, "!")
    tokens = load_tokenizer(tmp_path).encode(["red apple " * 20, "red"], 6)
    end = clip_tokenizer().eos_token_id
    assert tokens["input_ids"][0, -1] == end and tokens["input_ids"][1, 2] == end
    assert tokens["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]


def test_side_of_padding(tmp_path: pathlib.Path):
    saved_files(tmp_path, "!")
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left"}))
    assert load_tokenizer(tmp_path).encode(["red"], 5)["attention_mask"].tolist() == [[0, 0, 1, 1, 1]]


def test_no_texts():
    assert load_tokenizer(E5).encode([], 5)["input_ids"].shape == (0, 5)


def test_missing_tokenizer(tmp_path: pathlib.Path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(PeaError, match=f"{tmp_path}: no tokenizer: expected tokenizer.json"):
        load_tokenizer(tmp_path)


def test_unreadable_tokenizer(tmp_path: pathlib.Path):
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(PeaError, match="transformers cannot read this tokenizer"):
        load_tokenizer(tmp_path)
    shutil.copy(E5 / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(PeaError, match="tokenizer_config.json: no JSON object"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(PeaError, match="tokenizer.json: not a tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "no JSON object"),
        ({"pad_token": 3}, "pad_token=3 is no such setting"),
        ({"pad_token": {"lstrip": True}}, "pad_token={'lstrip': True} is no such setting"),
        ({"pad_token": {"content": "<pad>", "lstrip": "yes"}}, "is no such setting"),
        ({"mask_token": "\ud800"}, "mask_token='.ud800' is no such setting"),
        ({"padding_side": "top"}, "padding_side='top' is no such setting"),
        ({"truncation_side": {}}, "truncation_side={} is no such setting"),
        ({"model_max_length": "77"}, "model_max_length='77' is no such setting"),
        ({"model_max_length": 0}, "model_max_length=0 is no such setting"),
    ],
)
def test_settings_that_no_tokenizer_has(tmp_path: pathlib.Path, settings, said: str):
    shutil.copy(E5 / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(PeaError, match=f"^{tmp_path}/tokenizer_config.json: .*{said}"):
        load_tokenizer(tmp_path)


def test_where_the_library_panics(tmp_path: pathlib.Path):
    content = json.loads((E5 / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(PeaError, match="tokenizer.json: not a tokenizer") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_no_padding_token(tmp_path: pathlib.Path):
    words = tokenizers.models.WordLevel({"a": 0}, unk_token="a")
    tokenizers.Tokenizer(words).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(PeaError, match="no padding token"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "b"}')
    with pytest.raises(PeaError, match="no padding token"):
        load_tokenizer(tmp_path)


def test_what_cannot_be_tokenised_is_refused():
    tokenizer = load_tokenizer(E5)
    with pytest.raises(PeaError, match="list of strings"):
        tokenizer.encode("red apple", 8)
    with pytest.raises(PeaError, match="context_length=2 leaves no room beside 2 special tokens"):
        tokenizer.encode(["red apple"], 2)


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("named", ["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", None])
@pytest.mark.parametrize(
    "cleaning", [{}, {"do_lower_case": False}, {"do_lower_case": True}, {"strip_accents": False},
                 {"do_lower_case": False, "strip_accents": True}, {"tokenize_chinese_chars": False}],
)  # fmt: skip
def test_settings_of_a_bert_stand_above_its_tokenizer_json(tmp_path, cleaning, named, lowercase):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "caf", "Caf", "##e", "##é", "红", "##红", "果"]
    backend = tokenizers.BertWordPieceTokenizer({word: i for i, word in enumerate(words)}, lowercase=lowercase)
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = {"pad_token": "[PAD]"} | cleaning | ({} if named is None else {"tokenizer_class": named})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    texts = ["Café café cafe", "红果 Caf红"]
    expected = transformers.AutoTokenizer.from_pretrained(tmp_path)(texts, padding="max_length", max_length=12)
    np.testing.assert_array_equal(load_tokenizer(tmp_path).encode(texts, 12)["input_ids"], expected.input_ids)


class Busy:
    """A backend that, as those of tokenizers before 0.23, cannot be set while it encodes."""

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend, self._encodes = backend, 0

    def __getattr__(self, name: str):
        if name.startswith("enable_") and self._encodes:
            raise RuntimeError("Already borrowed")
        return getattr(self._backend, name)

    def encode_batch(self, texts: list[str]) -> list[tokenizers.Encoding]:
        self._encodes += 1
        time.sleep(0.01)  # others have their turn
        encodings = self._backend.encode_batch(texts)
        self._encodes -= 1
        return encodings


def test_threads_may_share_a_tokenizer():
    """As those that read the training set do; each gets the length that it asks for."""
    alone = load_tokenizer(E5)
    shared = dataclasses.replace(alone, backend=Busy(load_tokenizer(E5).backend))
    lengths = [8, 16] * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda length: shared.encode(TEXTS, length), lengths))
    for length, tokens in zip(lengths, found, strict=True):
        for name, expected in alone.encode(TEXTS, length).items():
            np.testing.assert_array_equal(tokens[name], expected)
