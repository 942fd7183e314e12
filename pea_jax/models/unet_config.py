"""What the UNet's `config.json` says, with one entry a block where diffusers allows a single number."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.models import unet_encoder_config
from pea_jax.models.config_fields import check_choice, check_lists, check_whole, per_block, read_fields
from pea_jax.models.unet_encoder_config import IGNORED, UNetEncoderConfig, encoder_fields, transformer_layers

DEFAULTS = {
    **unet_encoder_config.DEFAULTS,
    "out_channels": 4,
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "reverse_transformer_layers_per_block": None,
    "time_embedding_dim": None,
    "time_cond_proj_dim": None,
}
SUPPORTED = {
    **unet_encoder_config.SUPPORTED,
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "dual_cross_attention": (False,),
    "mid_block_only_cross_attention": (None, False),
    "resnet_out_scale_factor": (1,),
    "resnet_skip_time_act": (False,),
    "time_embedding_act_fn": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}


@dataclasses.dataclass(frozen=True)
class UNetConfig(UNetEncoderConfig):
    """Field names are diffusers'; `up_transformer_layers` is as `down_transformer_layers`, from the middle on.

    `time_cond_proj_dim` is None unless the model is told the guidance scale, as a consistency model is.
    """

    out_channels: int
    up_block_types: tuple[str, ...]
    up_transformer_layers: tuple[tuple[int, ...], ...]
    time_cond_proj_dim: int | None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "UNetConfig":
        """From a diffusers `config.json`.

        Raises:
          PeaError: naming the fields whose values are not supported, not known or do not fit together.
        """
        config = {name: value for name, value in config.items() if name not in IGNORED}
        fields = read_fields(config, defaults=DEFAULTS, supported=SUPPORTED)
        told = ["time_cond_proj_dim"] if fields["time_cond_proj_dim"] is not None else []
        check_whole(fields, ["out_channels", *told])
        check_lists(fields, ["up_block_types"])
        encoder = encoder_fields(fields)
        block_types = per_block("up_block_types", list(fields["up_block_types"]), len(encoder["down_block_types"]))
        check_choice("up_block_types", block_types, ("UpBlock2D", "CrossAttnUpBlock2D"))
        resnets = tuple(len(layers) + 1 for layers in encoder["down_transformer_layers"][::-1])
        return cls(
            **encoder,
            out_channels=fields["out_channels"],
            up_block_types=block_types,
            up_transformer_layers=transformer_layers(*_up_layers(fields), block_types, resnets),
            time_cond_proj_dim=fields["time_cond_proj_dim"],
        )


def _up_layers(fields: dict[str, Any]) -> tuple[str, Any]:
    """Name and value of the field that holds the transformer layers of the up blocks."""
    name, reverse_name = "transformer_layers_per_block", "reverse_transformer_layers_per_block"
    if fields[reverse_name] is not None:
        return reverse_name, fields[reverse_name]
    layers = fields[name]
    if not isinstance(layers, list | tuple):
        return name, layers
    if any(isinstance(entry, list | tuple) for entry in layers):
        raise PeaError(f"{name} with a list for a block needs {reverse_name}")
    return name, layers[::-1]
