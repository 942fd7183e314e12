"""XLM-R in open_clip's own files (`xlm-roberta-large-ViT-H-14` and its small relative)."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.weights.config_files import one_line
from pea_jax.weights.text_files import BERT_HEADS, Build, TextFiles, open_tensors

CONFIG = "open_clip_config.json"
STEMS = ("open_clip_model", "open_clip_pytorch_model")
# open_clip has these configs from the Hub, by the name in its own.
SHARED = dict(
    model_type="xlm-roberta",
    vocab_size=250002,
    max_position_embeddings=514,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    pad_token_id=1,
)
BASE = dict(SHARED, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
LARGE = dict(SHARED, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
NETWORKS: dict[str, Mapping[str, Any]] = {"xlm-roberta-base": BASE, "xlm-roberta-large": LARGE}
# The half for pictures, and the projection of the pooled state, behind the states of the tokens.
IGNORED = rf"visual\..*|logit_scale|logit_bias|text\.proj\..*|{BERT_HEADS}"


def open_open_clip(folder: pathlib.Path, build: Build) -> TextFiles:
    """The XLM-R in `folder` (`open_clip_config.json` and the weights), before open_clip's pooling and projection.

    Raises:
      PeaError: if a file is missing or broken, or the text half is not XLM-R.
    """
    network = build(_network(folder))
    source, tensors = open_tensors(folder, stem=stem_in(folder), prefix=r"text\.transformer\.", ignored=IGNORED)
    return TextFiles(network, tensors, source)


def stem_in(folder: pathlib.Path) -> str:
    """The name of the weights without its ending."""
    return next((stem for stem in STEMS if any(folder.glob(f"{stem}.*"))), STEMS[-1])


def read_open_clip_config(folder: pathlib.Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """`model_cfg` and `preprocess_cfg` of `open_clip_config.json`; some files hold the former alone, others no latter.

    Raises:
      PeaError: if the file is missing or not the config of a model whose text encoder is from the Hub.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
        model = config.get("model_cfg", config)
        model["text_cfg"]["hf_model_name"]
        return dict(model), dict(config.get("preprocess_cfg") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PeaError(f"{path}: not open_clip's config of a text encoder from the Hub ({one_line(error)})") from error


def _network(folder: pathlib.Path) -> Mapping[str, Any]:
    name = read_open_clip_config(folder)[0]["text_cfg"]["hf_model_name"]
    network = NETWORKS.get(str(name).removeprefix("FacebookAI/"))
    if network is None:
        raise PeaError(
            f"{folder / CONFIG}: text_cfg.hf_model_name={name!r} is not known (known: {', '.join(NETWORKS)})"
        )
    return network
