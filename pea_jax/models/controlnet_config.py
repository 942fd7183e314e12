"""What a ControlNet's `config.json` says."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.models.config_fields import check_choice, check_lists, check_whole, read_fields
from pea_jax.models.unet_encoder_config import DEFAULTS, IGNORED, SUPPORTED, UNetEncoderConfig, encoder_fields

CLASS = "ControlNetModel"
MID_BLOCK_TYPES = ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D")
OWN_DEFAULTS = {
    "conditioning_channels": 3,
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
    "controlnet_conditioning_channel_order": "rgb",
    "global_pool_conditions": False,
}


@dataclasses.dataclass(frozen=True)
class ControlNetConfig(UNetEncoderConfig):
    """Field names are diffusers'."""

    conditioning_channels: int
    conditioning_embedding_out_channels: tuple[int, ...]
    controlnet_conditioning_channel_order: str
    global_pool_conditions: bool

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "ControlNetConfig":
        """From a diffusers `config.json`.

        Raises:
          PeaError: naming the fields whose values are not supported, not known or do not fit together.
        """
        known = {name: value for name, value in config.items() if name not in IGNORED}
        try:
            fields = read_fields(known, defaults=DEFAULTS | OWN_DEFAULTS, supported=SUPPORTED)
        except PeaError as error:
            if (kind := config.get("_class_name", CLASS)) == CLASS:
                raise
            raise PeaError(f"of a {kind}, not of a {CLASS} ({error})") from error
        own = {name: fields[name] for name in OWN_DEFAULTS}
        check_whole(own, ["conditioning_channels"])
        check_lists(own, ["conditioning_embedding_out_channels"])
        check_whole(own, ["conditioning_embedding_out_channels"], lists=True)
        order = "controlnet_conditioning_channel_order"
        check_choice(order, [own[order]], ("rgb", "bgr"))
        check_choice("mid_block_type", [fields["mid_block_type"]], MID_BLOCK_TYPES)
        check_choice("global_pool_conditions", [own["global_pool_conditions"]], (False, True))
        own["conditioning_embedding_out_channels"] = tuple(own["conditioning_embedding_out_channels"])
        # The UNet's field of that name is not one of a ControlNet.
        return cls(**encoder_fields(fields | {"time_embedding_dim": None}), **own)
