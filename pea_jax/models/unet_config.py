"""What the UNet's `config.json` says, with one entry a block where diffusers allows a single number."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.models.config_fields import per_block, read_fields

DEFAULTS = {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "attention_head_dim": 8,
    "cross_attention_dim": 1280,
    "use_linear_projection": False,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "time_embedding_dim": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
}
SUPPORTED = {
    "act_fn": ("silu", "swish"),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
# Without effect here: the network is frozen (dropout), the softmax is in fp32 anyway (upcast_attention), and the rest
# concerns pipelines or embeddings that are refused above.
IGNORED = ("sample_size", "dropout", "upcast_attention", "addition_embed_type_num_heads")
CROSS_ATTENTION = {"DownBlock2D": False, "CrossAttnDownBlock2D": True, "UpBlock2D": False, "CrossAttnUpBlock2D": True}


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Field names are diffusers'; tuples run over the blocks from the input to the output.

    `down_transformer_layers` and `up_transformer_layers` give each block its number of transformer layers behind each
    of its resnets (so they also tell how many resnets there are).
    """

    in_channels: int
    out_channels: int
    down_block_types: tuple[str, ...]
    mid_block_type: str | None
    up_block_types: tuple[str, ...]
    block_out_channels: tuple[int, ...]
    down_transformer_layers: tuple[tuple[int, ...], ...]
    mid_transformer_layers: int
    up_transformer_layers: tuple[tuple[int, ...], ...]
    num_attention_heads: tuple[int, ...]
    cross_attention_dim: tuple[int, ...]
    use_linear_projection: bool
    norm_num_groups: int
    norm_eps: float
    flip_sin_to_cos: bool
    freq_shift: float
    time_embedding_dim: int
    addition_embed_type: str | None
    addition_time_embed_dim: int
    projection_class_embeddings_input_dim: int

    @property
    def pooled_dim(self) -> int:
        """Width of `text_embeds`: what the added conditioning takes beside the six embedded `time_ids`."""
        return self.projection_class_embeddings_input_dim - 6 * self.addition_time_embed_dim

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "UNetConfig":
        """From a diffusers `config.json`.

        Raises:
          PeaError: naming the fields whose values are not supported, not known or do not fit together.
        """
        config = {name: value for name, value in config.items() if name not in IGNORED}
        fields = read_fields(config, defaults=DEFAULTS, supported=SUPPORTED)
        widths = fields["block_out_channels"] = tuple(fields["block_out_channels"])
        for name in ("down_block_types", "up_block_types"):
            fields[name] = per_block(name, list(fields[name]), len(widths))
        _check(fields)
        fields.update(_transformer_layers(fields, len(widths)))
        # diffusers reads the number of heads from `attention_head_dim`, by a naming mistake that it keeps.
        fields["num_attention_heads"] = per_block("attention_head_dim", fields.pop("attention_head_dim"), len(widths))
        fields["cross_attention_dim"] = per_block("cross_attention_dim", fields["cross_attention_dim"], len(widths))
        fields["time_embedding_dim"] = fields["time_embedding_dim"] or 4 * widths[0]
        return cls(**fields)


def _check(fields: dict[str, Any]) -> None:
    for name, value, choices in (
        *(("down_block_types", value, ("DownBlock2D", "CrossAttnDownBlock2D")) for value in fields["down_block_types"]),
        *(("up_block_types", value, ("UpBlock2D", "CrossAttnUpBlock2D")) for value in fields["up_block_types"]),
        ("mid_block_type", fields["mid_block_type"], ("UNetMidBlock2DCrossAttn", None)),
        ("addition_embed_type", fields["addition_embed_type"], ("text_time", None)),
    ):
        if value not in choices:
            raise PeaError(f"{name}: {value!r} is not supported (only {' or '.join(map(repr, choices))})")
    for name in ("addition_time_embed_dim", "projection_class_embeddings_input_dim"):
        if fields["addition_embed_type"] and not fields[name]:
            raise PeaError(f"addition_embed_type='text_time' needs {name}")
    if not fields["norm_num_groups"] or any(
        width % fields["norm_num_groups"] for width in fields["block_out_channels"]
    ):
        raise PeaError(f"norm_num_groups={fields['norm_num_groups']} does not divide block_out_channels")


def _transformer_layers(fields: dict[str, Any], num_blocks: int) -> dict[str, Any]:
    """Replaces diffusers' three interdependent fields by the number of layers behind every resnet."""
    layers_per_block = per_block("layers_per_block", fields.pop("layers_per_block"), num_blocks)
    name, reverse_name = "transformer_layers_per_block", "reverse_transformer_layers_per_block"
    down, up = fields.pop(name), fields.pop(reverse_name)
    down = per_block(name, down, num_blocks)
    if up is None and any(isinstance(entry, list | tuple) for entry in down):
        raise PeaError(f"{name} with a list for a block needs {reverse_name}")
    up = per_block(reverse_name, down[::-1] if up is None else up, num_blocks)
    resnets_up = [count + 1 for count in layers_per_block[::-1]]
    return {
        "down_transformer_layers": tuple(map(per_block, [name] * num_blocks, down, layers_per_block)),
        "mid_transformer_layers": per_block(name, down[-1], layers_per_block[-1])[0],
        "up_transformer_layers": tuple(map(per_block, [reverse_name] * num_blocks, up, resnets_up)),
    }
