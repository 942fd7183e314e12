"""What the autoencoder's `config.json` says."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.models.config_fields import read_fields

# Without effect here: hints for pipelines; the block types are checked apart.
IGNORED = ("sample_size", "force_upcast", "down_block_types", "up_block_types")


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Field names and defaults are diffusers'."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "VAEConfig":
        """From a diffusers `config.json`.

        Raises:
          PeaError: naming the fields whose values are not supported or not known.
        """
        for name, block_type in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            if others := set(config.get(name, ())) - {block_type}:
                raise PeaError(f"{name}: {', '.join(sorted(others))} is not supported (only {block_type})")
        fields = read_fields(
            {name: value for name, value in config.items() if name not in IGNORED},
            defaults={field.name: field.default for field in dataclasses.fields(cls)},
            supported={"act_fn": ("silu", "swish"), "latents_mean": (None,), "latents_std": (None,)},
        )
        return cls(**{**fields, "block_out_channels": tuple(fields["block_out_channels"])})
