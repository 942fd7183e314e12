"""Tokenizers of every true kind, trained on the corpus, in the layouts in which people have them."""

import functools
import io
import json
import pathlib
import shutil

import sentencepiece
import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from tests.prompts import corpus

E5 = pathlib.Path(__file__).resolve().parents[1] / "assets" / "multilingual-e5-small"
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
XLM_R = dict(tokenizer_class="XLMRobertaTokenizer", model_max_length=512)
JAPANESE_PAD, JAPANESE_SIZE = 3, 900
T5_TOKENS = dict(pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
T5 = dict(tokenizer_class="T5Tokenizer", model_max_length=512, extra_ids=0, **T5_TOKENS)


@functools.cache
def unigram(**ids: int) -> bytes:
    """A sentencepiece Unigram model; too few pieces for the rarer characters, and with a space that starts words."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        vocab_size=3000,
        character_coverage=0.98,
        num_threads=1,
        num_sub_iterations=1,
        minloglevel=2,
        **ids,
    )
    return model.getvalue()


@functools.cache
def japanese_sentencepiece() -> bytes:
    """Of the kind of rinna/japanese-roberta-base: unknown 0, padding 3, the other special tokens after it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(("ja",))),
        model_writer=model,
        vocab_size=JAPANESE_SIZE,
        character_coverage=0.98,
        pad_id=JAPANESE_PAD,
        pad_piece="[PAD]",
        user_defined_symbols=["[CLS]", "[SEP]", "[MASK]"],
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


@functools.cache
def clip() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of CLIP's byte-level BPE."""
    backend = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(CLIP_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    backend.train_from_iterator(corpus(), trainer)
    merges = [tuple(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    names = dict.fromkeys([*words, "<|startoftext|>", "<|endoftext|>"])
    return {token: number for number, token in enumerate(names)}, merges


@functools.cache
def wordpiece(lowercase: bool) -> list[str]:
    """The words of a BERT vocabulary, in order."""
    backend = tokenizers.BertWordPieceTokenizer(lowercase=lowercase)
    backend.train_from_iterator(corpus(), vocab_size=4000, limit_alphabet=2000, show_progress=False)
    return [word for word, _ in sorted(backend.get_vocab().items(), key=lambda entry: entry[1])]


def settings(folder: pathlib.Path, **fields: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def xlm_r_sentencepiece(folder: pathlib.Path) -> None:
    (folder / "sentencepiece.bpe.model").write_bytes(unigram())
    settings(folder, **XLM_R)


def xlm_r_published(folder: pathlib.Path) -> None:
    """A tokenizer.json as the E5 family publishes it, of all of XLM-R's kind but the pieces left out."""
    shutil.copy(E5 / "tokenizer.json", folder)
    settings(
        folder,
        **XLM_R,
        mask_token={"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False},
    )


def xlm_r_of_a_config(folder: pathlib.Path) -> None:
    """The same where the network's config alone tells of what kind it is."""
    xlm_r_published(folder)
    settings(folder, model_max_length=512)
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')


def t5_published(folder: pathlib.Path) -> None:
    """A tokenizer.json in the form in which transformers 4.40 wrote those of T5."""
    t5_sentencepiece(folder)
    resaved(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    spaces = dict(type="Replace", pattern={"Regex": " {2,}"}, content="▁")
    strip = dict(type="Strip", strip_left=False, strip_right=True)
    content["normalizer"] = dict(type="Sequence", normalizers=[content["normalizer"], strip, spaces])
    content["pre_tokenizer"] = dict(type="Metaspace", replacement="▁", prepend_scheme="always", split=True)
    path.write_text(json.dumps(content))
    settings(folder, **T5 | dict(tokenizer_class="T5TokenizerFast"))


def t5_sentencepiece(folder: pathlib.Path) -> None:
    (folder / "spiece.model").write_bytes(unigram(pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    settings(folder, **T5)


def mt5_sentencepiece(folder: pathlib.Path) -> None:
    """With a piece for each byte."""
    model = unigram(pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=True)
    (folder / "spiece.model").write_bytes(model)
    settings(folder, **T5)


def clip_old(folder: pathlib.Path) -> None:
    vocabulary, merges = clip()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
    ends = dict(bos_token="<|startoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>")
    settings(folder, tokenizer_class="CLIPTokenizer", model_max_length=77, pad_token="<|endoftext|>", **ends)


def clip_of_sdxl(folder: pathlib.Path) -> None:
    """As SDXL's second tokenizer, which pads with a word."""
    clip_old(folder)
    path = folder / "tokenizer_config.json"
    settings(folder, **json.loads(path.read_text()) | dict(pad_token="!"))


def bert_words(folder: pathlib.Path, lowercase: bool = False) -> None:
    (folder / "vocab.txt").write_text("\n".join(wordpiece(lowercase)) + "\n")
    settings(folder, tokenizer_class="BertTokenizer", model_max_length=512, do_lower_case=lowercase)


def bert_lower_case(folder: pathlib.Path) -> None:
    bert_words(folder, lowercase=True)


def resaved(folder: pathlib.Path) -> None:
    """Replaces what is in `folder` by what today's transformers makes of it: tokenizer.json and its settings."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for path in folder.iterdir():
        path.unlink()
    tokenizer.save_pretrained(folder)
