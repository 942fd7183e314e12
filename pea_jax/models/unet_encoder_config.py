"""What `config.json` says of the half that UNet and ControlNet share: embeddings, the way down and the middle."""

import dataclasses
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.models.config_fields import (
    check_choice,
    check_lists,
    check_numbers,
    check_whole,
    check_widths,
    per_block,
)

CROSS_ATTENTION_MID = "UNetMidBlock2DCrossAttn"
DEFAULTS = {
    "in_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": CROSS_ATTENTION_MID,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "cross_attention_dim": 1280,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "use_linear_projection": False,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
}
SUPPORTED = {
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
}
# What diffusers' `EMAModel` writes into the config of the averaged model that it saves.
EMA = ("decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup")
# Without effect here: the network is frozen (dropout), the softmax is in fp32 anyway (upcast_attention), and the rest
# concerns pipelines or embeddings that are refused above.
IGNORED = ("sample_size", "dropout", "upcast_attention", "addition_embed_type_num_heads", *EMA)
CROSS_ATTENTION = {"DownBlock2D": False, "CrossAttnDownBlock2D": True, "UpBlock2D": False, "CrossAttnUpBlock2D": True}


@dataclasses.dataclass(frozen=True)
class UNetEncoderConfig:
    """Field names are diffusers'; tuples run over the blocks from the input to the output.

    `down_transformer_layers` gives each block its number of transformer layers behind each of its resnets, 0 where it
    has no attention (so it also tells how many resnets there are). `encoder_hid_dim` is None unless prompt embeddings
    are first projected to `cross_attention_dim`.
    """

    in_channels: int
    down_block_types: tuple[str, ...]
    mid_block_type: str | None
    block_out_channels: tuple[int, ...]
    down_transformer_layers: tuple[tuple[int, ...], ...]
    mid_transformer_layers: int
    num_attention_heads: tuple[int, ...]
    cross_attention_dim: tuple[int, ...]
    encoder_hid_dim: int | None
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
    def prompt_embed_dim(self) -> int:
        """Width of `prompt_embeds`."""
        return self.encoder_hid_dim or self.cross_attention_dim[0]

    @property
    def pooled_dim(self) -> int:
        """Width of `text_embeds`: what the added conditioning takes beside the six embedded `time_ids`.

        Raises:
          PeaError: the model takes no pooled embeddings, as Stable Diffusion 1.5 and 2.1.
        """
        if self.addition_embed_type is None:
            raise PeaError("this base model takes no pooled prompt embeddings (addition_embed_type is None)")
        return self.projection_class_embeddings_input_dim - 6 * self.addition_time_embed_dim

    @property
    def skip_channels(self) -> list[int]:
        """Widths of the skip connections: the first convolution's, then those of every resnet and downsampler."""
        widths, last = [self.block_out_channels[0]], len(self.block_out_channels) - 1
        for i, layers in enumerate(self.down_transformer_layers):
            widths += [self.block_out_channels[i]] * (len(layers) + (i < last))
        return widths


def encoder_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of `UNetEncoderConfig` from the values of `DEFAULTS`' fields and `time_embedding_dim`.

    Raises:
      PeaError: naming the field that is not supported or does not fit the others.
    """
    _check(fields)
    widths, mid_block_type = tuple(fields["block_out_channels"]), fields["mid_block_type"]
    block_types = per_block("down_block_types", list(fields["down_block_types"]), len(widths))
    check_choice("down_block_types", block_types, ("DownBlock2D", "CrossAttnDownBlock2D"))
    resnets = per_block("layers_per_block", fields["layers_per_block"], len(widths))
    per_resnet = fields["transformer_layers_per_block"]
    down = transformer_layers("transformer_layers_per_block", per_resnet, block_types, resnets)
    last = per_resnet[-1] if isinstance(per_resnet, list | tuple) else per_resnet
    mid = _layers("transformer_layers_per_block", last, resnets[-1])[0] if mid_block_type == CROSS_ATTENTION_MID else 0
    derived = {
        "block_out_channels": widths,
        "down_block_types": block_types,
        "down_transformer_layers": down,
        "mid_transformer_layers": mid,
        # diffusers reads the number of heads from `attention_head_dim`, by a naming mistake that it keeps.
        "num_attention_heads": per_block("attention_head_dim", fields["attention_head_dim"], len(widths)),
        "cross_attention_dim": per_block("cross_attention_dim", fields["cross_attention_dim"], len(widths)),
        "time_embedding_dim": fields["time_embedding_dim"] or 4 * widths[0],
    }
    names = {field.name for field in dataclasses.fields(UNetEncoderConfig)}
    return {name: value for name, value in (fields | derived).items() if name in names}


def transformer_layers(name: str, value: Any, block_types: tuple[str, ...], resnets: tuple[int, ...]) -> tuple:
    """The number of transformer layers behind each resnet of each block.

    A block without attention has 0, whatever `value` says of it: diffusers does not look there, and the configs of
    pruned models have an entry too few.
    """
    return tuple(
        _layers(name, layers, count) if CROSS_ATTENTION[block_type] else (0,) * count
        for layers, block_type, count in zip(per_block(name, value, len(resnets)), block_types, resnets, strict=True)
    )


def _layers(name: str, value: Any, resnets: int) -> tuple[int, ...]:
    """`value` for each of a block's resnets."""
    check_whole({name: value}, [name], least=0, lists=True)
    if isinstance(value, list | tuple) and len(value) != resnets:
        raise PeaError(f"{name}: {value!r} must have one entry for each of the {resnets} resnets of its block")
    return per_block(name, value, resnets)


def _check(fields: dict[str, Any]) -> None:
    check_widths(fields)
    check_whole(fields, ["in_channels"])
    check_whole(fields, ("layers_per_block", "attention_head_dim", "cross_attention_dim"), lists=True)
    check_lists(fields, ["down_block_types"])
    check_numbers(fields, ["norm_eps"], positive=True)
    check_numbers(fields, ["freq_shift"])
    for name in ("use_linear_projection", "flip_sin_to_cos"):
        check_choice(name, [fields[name]], (False, True))
    check_choice("mid_block_type", [fields["mid_block_type"]], (CROSS_ATTENTION_MID, "UNetMidBlock2D", None))
    check_choice("addition_embed_type", [fields["addition_embed_type"]], ("text_time", None))
    check_choice("encoder_hid_dim_type", [fields["encoder_hid_dim_type"]], ("text_proj", None))
    for name, reason in (
        ("time_embedding_dim", None),
        ("encoder_hid_dim", "encoder_hid_dim_type"),
        ("addition_time_embed_dim", "addition_embed_type"),
        ("projection_class_embeddings_input_dim", "addition_embed_type"),
    ):
        if fields[name] is not None:
            check_whole(fields, [name])
        elif reason and fields[reason]:
            raise PeaError(f"{reason}={fields[reason]!r} needs {name}")
