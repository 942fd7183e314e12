"""Tokenizers of transformers folders, run by the `tokenizers` library."""

import dataclasses
import json
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import normalizers, pre_tokenizers

from pea_jax.errors import PeaError
from pea_jax.weights.config_files import one_line, read_config

VOCABULARY_FILES = ("vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
SETTINGS_FILES = ("special_tokens_map.json", "tokenizer_config.json")
# Of these transformers takes the vocabulary from tokenizer.json, but cuts texts into words as sentencepiece does; the
# files of some years make a token of the space at the end of a text or between special tokens.
SENTENCEPIECE_CLASSES = ("XLMRobertaTokenizer", "T5Tokenizer", "MT5Tokenizer")
# By `model_type` of config.json, where the settings name no class.
SENTENCEPIECE_MODELS = ("xlm-roberta", "metaclip_2", "t5", "mt5")
# Of these what the settings say of case, accents and Chinese characters holds, whatever tokenizer.json says.
BERT_CLASSES, BERT_MODELS = ("BertTokenizer",), ("bert", "chinese_clip")
BERT_CLEANING = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}  # with the defaults
TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
PADDING_RULE = ("pad_token", "pad_token_id", "padding_side", "truncation_side")
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A `tokenizers.Tokenizer` with the rules of padding and truncation that its folder states beside it.

    Any number of threads may use it.
    """

    backend: tokenizers.Tokenizer
    pad_token: str
    pad_token_id: int
    padding_side: str
    model_max_length: int | None
    truncation_side: str = "right"
    unk_token_id: int | None = None  # of letters that it does not know; None: it knows all, or does not say
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy or a pickle of it has a lock of its own; one of these cannot be copied."""
        return type(self), tuple(getattr(self, field.name) for field in dataclasses.fields(self) if field.init)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, those added to the vocabulary included."""
        return self.backend.get_vocab_size()

    def encode(self, texts: Sequence[str], context_length: int) -> dict[str, np.ndarray]:
        """Tokens of `texts`, each truncated (its last special token stays) and padded to `context_length`.

        Returns:
          `input_ids` and `attention_mask`, both `[len(texts), context_length]` int32.

        Raises:
          PeaError: if `texts` is one string, or `context_length` leaves no room for a text.
        """
        if isinstance(texts, str):
            raise PeaError(f"texts must be a list of strings, not the string {texts!r}: put it into a list")
        specials = self.backend.num_special_tokens_to_add(False)
        if context_length <= specials:  # the library would switch truncation off
            raise PeaError(f"context_length={context_length} leaves no room beside {specials} special tokens")
        padding: dict[str, Any] = dict(direction=self.padding_side, pad_id=self.pad_token_id, pad_token=self.pad_token)
        # Of all tokenizers only XLM-R's file makes a token of a space at the end; transformers does not let it.
        stripped = [text.strip() for text in texts]
        with self._lock:  # both settings are the backend's own, and while it encodes, older ones refuse to be set
            self.backend.enable_truncation(context_length, direction=self.truncation_side)
            self.backend.enable_padding(length=context_length, **padding)
            encodings = self.backend.encode_batch(stripped)
        return {
            "input_ids": _rows([encoding.ids for encoding in encodings], context_length),
            "attention_mask": _rows([encoding.attention_mask for encoding in encodings], context_length),
        }


def padding_rule(tokenizer: Any) -> dict[str, Any]:
    """How a tokenizer pads and truncates, as an adapter's config.json has it of its text encoder."""
    return {field: getattr(tokenizer, field) for field in PADDING_RULE}


def rules_of(rule: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
    """What an adapter's config.json says of each of the text encoders that stand side by side.

    Raises:
      PeaError: it says it of more or fewer, or not as a list.
    """
    if count == 1 or "encoders" in rule:
        rules = rule.get("encoders", [rule])
        if not isinstance(rules, list) or not all(isinstance(each, Mapping) for each in rules):
            raise PeaError("text_encoder of the adapter's config.json: encoders must be a list of what it says of each")
        if len(rules) != count:
            raise PeaError(f"text_encoder of the adapter's config.json describes {len(rules)} encoders, names {count}")
        return rules
    # Brought in from elsewhere: what it says holds for each of them, but how they pad it does not say.
    return [{name: value for name, value in rule.items() if name not in PADDING_RULE}] * count


def check_padding(tokenizer: Any, rule: Mapping[str, Any], name: str) -> None:
    """Refuse a tokenizer that pads or truncates otherwise than the one an adapter was trained behind.

    Args:
      tokenizer: of a text encoder.
      rule: what the adapter's config.json says of it; what is not there is not asked for.
      name: of the encoder.

    Raises:
      PeaError: they differ.
    """
    for field, found in padding_rule(tokenizer).items():
        if rule.get(field, found) != found:
            raise PeaError(
                f"{name}: its tokenizer has {field}={found!r}, the adapter was trained with {rule[field]!r}; "
                "name the text encoder that it was trained behind"
            )


def load_tokenizer(folder: str | pathlib.Path) -> Tokenizer:
    """The tokenizer of `folder`: its tokenizer.json, or whatever else transformers can read (imported only then).

    The padding token is the one named in tokenizer_config.json or special_tokens_map.json, else the one set in
    tokenizer.json, else `<pad>` or `[PAD]`. `pad_token_id` of config.json is not looked at: it is often wrong.
    `do_lower_case` of a BERT's settings, and what else they say of cleaning, stands above tokenizer.json, and counts
    as true where it is missing, as in transformers.

    Raises:
      PeaError: if there is no tokenizer, or none that says how to pad.
    """
    folder = pathlib.Path(folder)
    if (folder / "tokenizer.json").is_file():
        return _from_json(folder)
    if any((folder / name).is_file() for name in VOCABULARY_FILES):
        return _from_transformers(folder)
    raise PeaError(f"{folder}: no tokenizer: expected tokenizer.json, or one of {', '.join(VOCABULARY_FILES)}")


def _from_json(folder: pathlib.Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a plain Exception, or a panic of its Rust, which is none
        raise PeaError(f"{path}: not a tokenizer ({one_line(error)}); copy or download it again") from error
    settings = _settings(folder)
    if _is_of(folder, settings, SENTENCEPIECE_CLASSES, SENTENCEPIECE_MODELS):
        _cut_as_sentencepiece(backend)
    if _is_of(folder, settings, BERT_CLASSES, BERT_MODELS):
        _clean_as_bert(backend, settings)
    specials = {name: _token(settings[name]) for name in SPECIAL_TOKENS if settings.get(name)}
    # What the folder declares special is cut out of the text before anything else, as transformers does it.
    backend.add_special_tokens([token for token in specials.values() if backend.token_to_id(token.content) is not None])
    padding = backend.padding or {}
    default = next((token for token in ("<pad>", "[PAD]") if backend.token_to_id(token) is not None), None)
    pad_token = specials["pad_token"].content if "pad_token" in specials else padding.get("pad_token", default)
    side = settings.get("padding_side", padding.get("direction", "right"))
    cut = settings.get("truncation_side", "right")
    named = {name: token.content for name, token in specials.items()}
    default = next((token for token in ("<unk>", "[UNK]") if backend.token_to_id(token) is not None), None)
    unknown = named.get("unk_token", default), named.get("eos_token")
    return _tokenizer(folder, backend, pad_token, side, cut, settings.get("model_max_length"), *unknown)


def _settings(folder: pathlib.Path) -> dict[str, Any]:
    """The settings files of `folder`, the more important one last."""
    merged: dict[str, Any] = {}
    for path in [folder / name for name in SETTINGS_FILES if (folder / name).is_file()]:
        try:
            settings = json.loads(path.read_text("utf-8"))
            given = {name: value for name, value in settings.items() if value is not None}
        except (AttributeError, ValueError) as error:
            raise PeaError(f"{path}: no JSON object ({one_line(error)}); copy or download it again") from error
        if wrong := [name for name in given if not _is_sound(name, given[name])]:
            raise PeaError(f"{path}: {wrong[0]}={given[wrong[0]]!r} is no such setting; copy or download it again")
        merged |= given
    return merged


def _is_sound(name: str, value: Any) -> bool:
    if name in SPECIAL_TOKENS:
        text = value.get("content") if isinstance(value, dict) else value
        flags = [value[flag] for flag in TOKEN_FLAGS if flag in value] if isinstance(value, dict) else []
        return isinstance(text, str) and is_unicode(text) and all(isinstance(flag, bool) for flag in flags)
    if name in ("padding_side", "truncation_side"):
        return value in ("left", "right")
    if name in BERT_CLEANING:
        return isinstance(value, bool)
    return name != "model_max_length" or (isinstance(value, int | float) and value > 0)


def is_unicode(text: str) -> bool:
    """Whether Rust can have it: JSON may hold one half of a surrogate pair."""
    return text.encode("utf-8", "ignore").decode("utf-8") == text


def _is_of(
    folder: pathlib.Path, settings: Mapping[str, Any], classes: tuple[str, ...], model_types: tuple[str, ...]
) -> bool:
    """Whether the settings name one of `classes`, or none and config.json one of `model_types`."""
    if "tokenizer_class" in settings:
        return str(settings["tokenizer_class"]).removesuffix("Fast") in classes
    path = folder / "config.json"
    return path.is_file() and read_config(folder, lambda config: config.get("model_type") in model_types)


def _cut_as_sentencepiece(backend: tokenizers.Tokenizer) -> None:
    normalizer = backend.normalizer
    steps = [normalizer[i] for i in range(len(normalizer))] if isinstance(normalizer, normalizers.Sequence) else []
    backend.normalizer = next((step for step in steps if isinstance(step, normalizers.Precompiled)), normalizer)
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])


def _clean_as_bert(backend: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    if isinstance(backend.normalizer, normalizers.BertNormalizer):
        lower, accents, chinese = (settings.get(name, default) for name, default in BERT_CLEANING.items())
        backend.normalizer = normalizers.BertNormalizer(
            lowercase=lower, strip_accents=accents, handle_chinese_chars=chinese
        )


def _token(entry: str | Mapping[str, Any]) -> tokenizers.AddedToken:
    if isinstance(entry, str):
        return tokenizers.AddedToken(entry, special=True, normalized=False)
    flags = {name: entry[name] for name in TOKEN_FLAGS if name in entry}
    return tokenizers.AddedToken(entry["content"], special=True, **flags)


def _from_transformers(folder: pathlib.Path) -> Tokenizer:
    try:
        import transformers
    except ImportError as error:
        message = f"{folder}: no tokenizer.json; to read what is there, install the extra `pea_jax[transformers]`"
        raise PeaError(message) from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        backend = tokenizer.backend_tokenizer
    except (AttributeError, ImportError, KeyError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise PeaError(f"{folder}: transformers cannot read this tokenizer ({reason}); add a tokenizer.json") from error
    sides = tokenizer.padding_side, tokenizer.truncation_side
    unknown = tokenizer.unk_token, tokenizer.eos_token
    return _tokenizer(folder, backend, tokenizer.pad_token, *sides, tokenizer.model_max_length, *unknown)


def _tokenizer(
    folder: pathlib.Path,
    backend: tokenizers.Tokenizer,
    pad_token: str | None,
    padding_side: str,
    truncation_side: str,
    model_max_length: float | None,
    unk_token: str | None,
    eos_token: str | None,
) -> Tokenizer:
    pad_token_id = None if pad_token is None else backend.token_to_id(pad_token)
    if pad_token is None or pad_token_id is None:
        raise PeaError(f"{folder}: no padding token: name one of its tokens as pad_token in tokenizer_config.json")
    # transformers writes "no limit" as 10**30.
    limit = None if model_max_length is None or model_max_length >= 2**31 else int(model_max_length)
    # CLIP's, which knows all bytes, names the token that ends every text.
    unk_token_id = None if unk_token in (None, eos_token) else backend.token_to_id(unk_token)
    return Tokenizer(backend, pad_token, pad_token_id, padding_side, limit, truncation_side, unk_token_id)


def _rows(rows: list[list[int]], width: int) -> np.ndarray:
    return np.array(rows, np.int32).reshape(len(rows), width)
