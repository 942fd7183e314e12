"""The text encoders that are known: what reads their files, and how each is used unless the caller says otherwise."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.text.cn_clip import load_cn_clip_tokenizer
from pea_jax.text.framed_tokenizer import FramedTokenizer
from pea_jax.text.japanese import load_japanese_tokenizer
from pea_jax.text.tokenizer import Tokenizer, load_tokenizer
from pea_jax.text.youtokentome import load_youtokentome
from pea_jax.weights.cn_clip import FILES as CN_CLIP_FILES
from pea_jax.weights.config_files import read_config
from pea_jax.weights.open_clip import CONFIG as OPEN_CLIP_CONFIG


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A row of the table.

    `network` is what reads the weights, a name in `networks.NETWORKS`, and in `pytorch.networks` for PyTorch.
    `load_tokenizer` gives the tokenizer, which knows how it pads.
    """

    network: str
    load_tokenizer: Callable[[pathlib.Path], Tokenizer | FramedTokenizer] = load_tokenizer
    hidden_state: int = -1
    context_length: int | None = None  # at most; needed where neither tokenizer nor network has a limit
    masked: bool = True  # False: the network attends to padding as to any token


BERT = Architecture("bert")
CLIP = Architecture("clip_text")
# 77 tokens, as published adapters take them, where the network would take more.
ALTCLIP = Architecture("altclip", context_length=77)
OPEN_CLIP = Architecture("open_clip", context_length=77)
T5 = Architecture("t5", context_length=77)
DUAL_ENCODER = Architecture("text_half", context_length=77)
HYBRID_CLIP = Architecture("hybrid_clip", context_length=77)
JAPANESE_CLIP = dataclasses.replace(HYBRID_CLIP, load_tokenizer=load_japanese_tokenizer)

# By the name in `architectures` of config.json, with the `model_type` of the text half behind a slash where the name
# does not tell; for the original files of other libraries, by the class there or the library.
ARCHITECTURES = {
    "AltCLIPModel": ALTCLIP,
    "AltCLIPTextModel": ALTCLIP,
    "BertForMaskedLM": BERT,
    "BertModel": BERT,
    "CLIPModel": CLIP,
    "CLIPModel/bert": JAPANESE_CLIP,
    "CLIPModel/roberta": JAPANESE_CLIP,
    "CLIPTextModel": CLIP,
    "CLIPTextModelWithProjection": CLIP,
    "CLOOBModel": JAPANESE_CLIP,
    "ChineseCLIPModel": Architecture("text_half", context_length=52),
    "ChineseCLIPTextModel": Architecture("bert", context_length=52),
    "CustomTextCLIP": OPEN_CLIP,
    "HybridCLIP": HYBRID_CLIP,
    "MT5EncoderModel": T5,
    "MT5ForConditionalGeneration": T5,
    "MT5Model": T5,
    "MetaClip2Model": CLIP,
    "MetaClip2TextModel": CLIP,
    "MetaClip2TextModelWithProjection": CLIP,
    "T5EncoderModel": T5,
    "T5ForConditionalGeneration": T5,
    "T5Model": T5,
    "UMT5EncoderModel": T5,
    "UMT5ForConditionalGeneration": T5,
    "UMT5Model": T5,
    "VisionTextDualEncoderModel": DUAL_ENCODER,
    "XLMRobertaForMaskedLM": BERT,
    "XLMRobertaModel": BERT,
    "cn_clip": Architecture("cn_clip", load_cn_clip_tokenizer),
    "ruCLIP": Architecture("ruclip", load_youtokentome, masked=False),
}

# Files that tell the architecture of a folder whose config.json does not.
MARKERS = {OPEN_CLIP_CONFIG: "CustomTextCLIP", CN_CLIP_FILES: "cn_clip", "bpe.model": "ruCLIP"}


def architecture_of(folder: pathlib.Path) -> str:
    """The name in `ARCHITECTURES` of what `folder` holds.

    Raises:
      PeaError: if it is not known, or nothing in the folder says it.
    """
    marked = [name for file, name in MARKERS.items() if any(folder.glob(file))]
    if marked and not (folder / "config.json").is_file():
        return marked[0]
    return read_config(folder, lambda config: _known(config, marked))


def _known(config: Mapping[str, Any], marked: list[str]) -> str:
    named = config.get("architectures") or ["none"]
    text_half = config.get("text_config") or {}
    exact = [f"{name}/{text_half.get('model_type')}" for name in named]
    known = [name for name in (*exact, *named) if name in ARCHITECTURES] or marked
    if not known:
        raise PeaError(f"architecture {', '.join(named)} is not known (known: {', '.join(ARCHITECTURES)})")
    return known[0]
