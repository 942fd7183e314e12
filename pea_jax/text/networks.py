"""The networks of text encoders in JAX, by the names that `architectures` gives them."""

import functools
from collections.abc import Callable
from typing import Any

from pea_jax.weights import text_networks
from pea_jax.weights.altclip import load_altclip
from pea_jax.weights.t5 import load_t5
from pea_jax.weights.transformers import load_bert, load_clip_text

# Each `(folder, dtype=..., mesh=...)` gives a network that is called with `(input_ids, attention_mask)` and returns
# `(last_hidden_state, {"hidden_states": [...], ...})`; its `config` states `vocab_size`, `num_hidden_layers` and
# `max_length`, the most tokens it takes or None.
NETWORKS: dict[str, Callable[..., Any]] = {
    "altclip": load_altclip,
    "bert": load_bert,
    "clip_text": load_clip_text,
    "cn_clip": text_networks.load_cn_clip,
    "hybrid_clip": functools.partial(text_networks.load_text_half, positions_from_zero=True),
    "open_clip": text_networks.load_open_clip,
    "ruclip": text_networks.load_ruclip,
    "t5": load_t5,
    "text_half": text_networks.load_text_half,
}
