"""The text encoders that are known: what reads their files, and how each is used unless the caller says otherwise."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.text.tokenizer import Tokenizer, load_tokenizer
from pea_jax.weights.diffusers import read_config
from pea_jax.weights.transformers import load_bert, load_clip_text


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A row of the table.

    `load` `(folder, dtype=..., mesh=...)` gives a network that is called with `(input_ids, attention_mask)` and returns
    `(last_hidden_state, {"hidden_states": [...], ...})`; its `config` states `vocab_size`, `num_hidden_layers` and
    `max_length`, the most tokens it takes or None. `load_tokenizer` gives the tokenizer, which knows how it pads.
    """

    load: Callable[..., Any]
    load_tokenizer: Callable[[pathlib.Path], Tokenizer] = load_tokenizer
    hidden_state: int = -1
    context_length: int | None = None  # at most; needed where neither tokenizer nor network has a limit
    masked: bool = True  # False: the network attends to padding as to any token


BERT = Architecture(load_bert)
CLIP = Architecture(load_clip_text)

# By the name in `architectures` of config.json.
ARCHITECTURES = {
    "BertForMaskedLM": BERT,
    "BertModel": BERT,
    "CLIPTextModel": CLIP,
    "CLIPTextModelWithProjection": CLIP,
}

# A file that tells the architecture of a folder whose config.json does not.
MARKERS: dict[str, str] = {}


def architecture_of(folder: pathlib.Path) -> str:
    """The name in `ARCHITECTURES` of what `folder` holds.

    Raises:
      PeaError: if it is not known, or nothing in the folder says it.
    """
    marked = [name for file, name in MARKERS.items() if (folder / file).is_file()]
    if marked and not (folder / "config.json").is_file():
        return marked[0]
    return read_config(folder, lambda config: _known(config, marked))


def _known(config: Mapping[str, Any], marked: list[str]) -> str:
    named = config.get("architectures") or ["none"]
    known = [name for name in named if name in ARCHITECTURES] or marked
    if not known:
        raise PeaError(f"architecture {', '.join(named)} is not known (known: {', '.join(ARCHITECTURES)})")
    return known[0]
