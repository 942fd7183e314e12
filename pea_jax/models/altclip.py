"""The text encoder of AltCLIP: XLM-R and a projection of every token (transformers `AltCLIPTextModel`)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.models import layers
from pea_jax.models.bert import Bert, BertConfig
from pea_jax.models.config_fields import check_whole

# What `AltCLIPTextConfig` of transformers has where a config.json is silent.
DEFAULTS = dict(
    vocab_size=250002,
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    max_position_embeddings=514,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    pad_token_id=1,
)


@dataclasses.dataclass(frozen=True)
class AltCLIPTextConfig:
    """XLM-R's config and the width of the projection."""

    roberta: BertConfig
    project_dim: int = 768

    @property
    def vocab_size(self) -> int:
        return self.roberta.vocab_size

    @property
    def num_hidden_layers(self) -> int:
        return self.roberta.num_hidden_layers

    @property
    def max_length(self) -> int:
        return self.roberta.max_length

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "AltCLIPTextConfig":
        """From the `text_config` of a transformers `config.json`; errors as for `BertConfig.from_dict`."""
        roberta = BertConfig.from_dict(DEFAULTS | dict(config) | {"model_type": "xlm-roberta"})
        project_dim = config.get("project_dim", cls.project_dim)
        check_whole({"project_dim": project_dim}, ["project_dim"])
        return cls(roberta, project_dim)


class AltCLIPText(nnx.Module):
    """`(input_ids, attention_mask) -> (last_hidden_state, features)`."""

    def __init__(
        self,
        config: AltCLIPTextConfig,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # as every NNX module takes them; the parameters start at constants
        precision: dict[str, Any] = dict(dtype=dtype, param_dtype=param_dtype)
        width = config.roberta.hidden_size
        self.config = config
        self.roberta = Bert(config.roberta, **precision)
        self.pre_LN = layers.layer_norm(width, eps=config.roberta.layer_norm_eps, **precision)
        self.transformation = layers.Linear(width, config.project_dim, **precision)

    def __call__(
        self, input_ids: jax.Array, attention_mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Encodes tokens; arguments as for `Bert`.

        Returns:
          `last_hidden_state` `[B, L, project_dim]`, the projected states, and `{"hidden_states": ...}`, XLM-R's own.
        """
        last, features = self.roberta(input_ids, attention_mask)
        return self.transformation(self.pre_LN(last)), features
