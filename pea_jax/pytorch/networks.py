"""The networks of text encoders in PyTorch: classes of transformers, also for files that transformers does not read."""

import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transformers

from pea_jax.errors import PeaError
from pea_jax.weights.cn_clip import open_cn_clip
from pea_jax.weights.config_files import one_line, read_config
from pea_jax.weights.dual_encoders import open_text_half
from pea_jax.weights.open_clip import open_open_clip
from pea_jax.weights.openai_clip import open_ruclip
from pea_jax.weights.stored import whole
from pea_jax.weights.text_files import BERT_HEADS, CLIP, VISION, Build, TextFiles, is_quantised, open_tensors

# Of the names in `text.architectures` those whose files are read here; transformers reads the others.
READERS: dict[str, Callable[[pathlib.Path, Build], TextFiles]] = {
    "cn_clip": open_cn_clip,
    "hybrid_clip": open_text_half,
    "open_clip": open_open_clip,
    "ruclip": open_ruclip,
}
KINDS: dict[str, Any] = {
    "bert": transformers.BertModel,
    "roberta": transformers.RobertaModel,
    "xlm-roberta": transformers.XLMRobertaModel,
    CLIP: transformers.CLIPTextModel,
}
NOT_NEEDED = re.compile(rf"(.*\.)?({BERT_HEADS}|{VISION})")
PROJECTION = "text_projection.weight"  # of the pooled state, which nobody asks for


def load_network(folder: pathlib.Path, network: str, architecture: str) -> Any:
    """The text encoder of a folder alone, for use, in float32.

    Args:
      network: what reads its weights, as `text.architectures` names it.
      architecture: the class of transformers, where that reads them.

    Raises:
      PeaError: a file is missing or broken, or holds another network.
    """
    try:
        if network in READERS:
            model = _filled(READERS[network](folder, _empty))
        elif network == "bert" and is_quantised(folder):
            source, tensors = open_tensors(folder, ignored=BERT_HEADS)
            model = _filled(TextFiles(read_config(folder, _empty), tensors, source))
        else:
            model = _text_half(_read_by_transformers(folder, _class(architecture)))
    except PeaError:
        raise
    except Exception as error:  # of many libraries, for a config that no model has
        raise PeaError(f"{folder}: transformers cannot load it ({one_line(error)})") from error
    # From transformers 5 on it has the dtype of the files, in which a T5 in float16 overflows.
    return model.float().eval().requires_grad_(False)


def _class(architecture: str) -> Any:
    """Of T5 and its relatives the encoder alone."""
    name = architecture.partition("/")[0]
    if "T5" in name:
        name = name.partition("T5")[0] + "T5EncoderModel"
    if (kind := getattr(transformers, name, None)) is None:
        raise PeaError(f"the installed transformers ({transformers.__version__}) has no {name}; take a newer one")
    return kind


def _read_by_transformers(folder: pathlib.Path, kind: Any) -> Any:
    model, found = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    # For a weight that is not in the file transformers draws random numbers, and warns.
    if missing := sorted(name for name in found["missing_keys"] if not NOT_NEEDED.fullmatch(name)):
        raise PeaError(f"{folder}: {', '.join(missing[:8])} missing; copy or download it again")
    return model


def _text_half(model: Any) -> Any:
    half = getattr(model, "text_model", None)
    return model.base_model if half is None else half


def _empty(fields: Mapping[str, Any]) -> Any:
    """The network that the fields describe, with whatever weights."""
    if (kind := KINDS.get(fields.get("model_type", ""))) is None:
        raise PeaError(f"model_type={fields.get('model_type')!r} is not known here (known: {', '.join(KINDS)})")
    options = {} if fields["model_type"] == CLIP else dict(add_pooling_layer=False)
    return _text_half(kind(kind.config_class.from_dict(dict(fields)), **options))


def _filled(opened: TextFiles) -> Any:
    tensors = {
        name: torch.from_numpy(np.array(whole(tensor), np.float32))
        for name, tensor in opened.tensors.items()
        if name != PROJECTION
    }
    missing, unexpected = opened.network.load_state_dict(tensors, strict=False)
    if wrong := [*missing, *unexpected]:
        raise PeaError(f"{opened.source}: {', '.join(wrong[:8])} missing or unexpected; copy or download it again")
    return opened.network
