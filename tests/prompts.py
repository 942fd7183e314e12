"""Prompts on which tokenizers must agree: names and keywords of the embedded corpus, and what is hard to tokenise."""

import functools
import json
import pathlib
import tarfile
import unicodedata

CORPUS = pathlib.Path(__file__).resolve().parents[1] / "assets" / "emoji"
LANGUAGES = ("ru", "zh", "ja", "ko", "it", "en")
COUNT = 200
SPECIAL = [
    "",
    " ",
    "\t\n",
    "🍎",
    "👩‍🚀🏳️‍🌈 in space 👍🏽",
    "красное apple 红苹果 빨간 사과 リンゴ mela",
    "ｆｕｌｌ ｗｉｄｔｈ　ﬁne ①②",
    "a" * 300,
    "word " * 300,
    "  two  spaces\nand\r\nlines  ",
    "don't, 'll: it's 50% (off) #1 @home <b>bold</b> & C++!?…",
    "<s> </s> <pad> [MASK] [CLS] <|endoftext|> x",
    "İstanbul ŁÓDŹ ẞ Ǆ",
    "cafe\u0301 \u0438\u0306 \u0435\u0308 \u304b\u3099 \u1112\u1161\u11ab e\u0300\u0323",
    "zero\u200bwidth\u00adsoft\ufeffmark \u202eright\u202c",
    "\U0001f1ee\U0001f1f9 7\ufe0f\u20e3 \ue000 \ufffd",
    "ไทย العربية हिन्दी עברית",
]


@functools.cache
def prompts(language: str) -> list[str]:
    """`COUNT` different prompts in `language`: every kind of `SPECIAL`, and captions of the corpus written in NFC, in
    NFD, in capitals, with their emoji and with all their keywords (some longer than CLIP's 77 tokens)."""
    samples = _samples()
    lines = list(SPECIAL)
    for number, sample in enumerate(samples):
        name, keywords = sample[f"caption_{language}"], ", ".join(sample[f"keywords_{language}"])
        forms = (
            name,
            f"{name}, {keywords}",
            unicodedata.normalize("NFD", f"{name}, {keywords}"),
            f"{sample['emoji']} {name.upper()} ({sample['caption_en']})!",
            f"{keywords}; " * 12,
        )
        lines.append(forms[number % len(forms)])
    different = list(dict.fromkeys(lines))
    return different[:COUNT]


@functools.cache
def corpus(languages: tuple[str, ...] = LANGUAGES) -> list[str]:
    """Names and keywords of all samples of `prompts`, to train a tokenizer on."""
    return [
        text
        for sample in _samples()
        for language in languages
        for text in (sample[f"caption_{language}"], *sample[f"keywords_{language}"])
    ]


@functools.cache
def _samples() -> list[dict]:
    with tarfile.open(CORPUS / "emoji-train-00001.tar") as shard:
        members = [member for member in shard if member.name.endswith(".json")]
        return [json.load(shard.extractfile(member)) for member in members]
