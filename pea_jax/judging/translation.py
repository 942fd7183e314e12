"""Prompts translated into English by a model of `transformers`, for the baseline that people use today."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.judging.prompts import Prompt
from pea_jax.sampling.prompt_files import lines_of
from pea_jax.weights.locations import locate
from pea_jax.whole_files import whole

BATCH, LONGEST = 16, 128
# What models of many languages call them: NLLB, mBART, M2M100. A Marian model knows one pair and is not told.
CODES = {
    "de": ("deu_Latn", "de_DE", "de"), "en": ("eng_Latn", "en_XX", "en"), "es": ("spa_Latn", "es_XX", "es"),
    "fr": ("fra_Latn", "fr_XX", "fr"), "it": ("ita_Latn", "it_IT", "it"), "ja": ("jpn_Jpan", "ja_XX", "ja"),
    "ko": ("kor_Hang", "ko_KR", "ko"), "ru": ("rus_Cyrl", "ru_RU", "ru"), "tr": ("tur_Latn", "tr_TR", "tr"),
    "uk": ("ukr_Cyrl", "uk_UA", "uk"), "vi": ("vie_Latn", "vi_VN", "vi"), "zh": ("zho_Hans", "zh_CN", "zh"),
}  # fmt: skip


def translate(name: str, prompts: Sequence[Prompt], language: str, kept: pathlib.Path) -> list[str]:
    """The English of each prompt, by beam search; kept in the file `kept`, from where the next call has it.

    Args:
      name: folder or Hub id of a Marian, NLLB or other sequence-to-sequence model.
      language: of the prompts, `ru`, say.
      kept: JSONL with `id`, `prompt`, `english`, `model`; what it has of another model or prompt is made anew.

    Raises:
      PeaError: transformers or PyTorch is not installed, or the model is not to be had, or does not know the language.
    """
    found = _read(kept, name)
    if missing := [prompt for prompt in prompts if (prompt.id, prompt.prompt) not in found]:
        texts = _run(name, [prompt.prompt for prompt in missing], language)
        found |= {(prompt.id, prompt.prompt): text for prompt, text in zip(missing, texts, strict=True)}
        _write(kept, name, prompts, found)
    return [found[prompt.id, prompt.prompt] for prompt in prompts]


def _read(path: pathlib.Path, name: str) -> dict[tuple[str, str], str]:
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in lines_of(path.read_text("utf-8"))]
        return {(row["id"], row["prompt"]): row["english"] for row in rows if row["model"] == name}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PeaError(f"{path}: not what was written there ({error!r}); remove it") from error


def _write(path: pathlib.Path, name: str, prompts: Sequence[Prompt], found: dict[tuple[str, str], str]) -> None:
    rows = [
        dict(id=prompt.id, prompt=prompt.prompt, english=found[prompt.id, prompt.prompt], model=name)
        for prompt in prompts
    ]
    with whole(path) as partial:
        partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _run(name: str, texts: list[str], language: str) -> list[str]:
    try:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    except ImportError as error:
        raise PeaError("--translator needs PyTorch: pip install 'pea_jax[torch,transformers]'") from error
    folder = locate(name)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PeaError(f"{name}: not a translation model that transformers can load ({reason})") from error
    options = _languages(name, tokenizer, language)
    result: list[str] = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(texts[start : start + BATCH], return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            ids = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                num_beams=4,
                do_sample=False,
                max_new_tokens=LONGEST,
                **options,
            )
        result += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for text in result]


def _languages(name: str, tokenizer: Any, language: str) -> dict[str, int]:
    """Tells a model of many languages which it is given; what `generate` must be told for English."""
    if not hasattr(tokenizer, "src_lang"):
        return {}
    tokenizer.src_lang = _code(name, tokenizer, language)[0]
    return dict(forced_bos_token_id=_code(name, tokenizer, "en")[1])


def _code(name: str, tokenizer: Any, language: str) -> tuple[str, int]:
    """The tokenizer's own code of a language, and the token of that."""
    if language not in CODES:
        raise PeaError(f"{name}: the language {language!r} is not known (known: {', '.join(CODES)})")
    for code in CODES[language]:
        token = code if "_" in code else f"__{code}__"  # as M2M100 has it; "de" alone is a piece of words
        if (number := tokenizer.convert_tokens_to_ids(token)) not in (None, tokenizer.unk_token_id):
            return code, number
    raise PeaError(f"{name}: has no token for the language {language!r} (looked for: {', '.join(CODES[language])})")
