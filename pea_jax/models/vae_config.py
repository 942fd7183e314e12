"""What the autoencoder's `config.json` says."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.models.config_fields import check_choice, check_kinds, check_lists, check_widths, per_block, read_fields

# Without effect here: a hint for pipelines; the block types are checked apart.
IGNORED = ("sample_size", "down_block_types", "up_block_types")
# Latents are only ever scaled: no model here is trained on latents that are shifted or whitened channel by channel.
SUPPORTED = {"act_fn": ("silu", "swish"), "latents_mean": (None,), "latents_std": (None,), "shift_factor": (None, 0)}


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Field names and defaults are diffusers'.

    `force_upcast` says that the autoencoder overflows in float16: `load_vae` then keeps it in float32 instead.
    """

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @property
    def downscale(self) -> int:
        """Pixels along one side of a latent."""
        return 2 ** (len(self.block_out_channels) - 1)

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latents of a picture, whose own are in pixels.

        Raises:
          PeaError: the picture's are not multiples of `downscale`.
        """
        if any(side <= 0 or side % self.downscale for side in (height, width)):
            advice = f"multiples of {self.downscale}, which the autoencoder makes one latent of"
            raise PeaError(f"picture size {width}x{height}: width and height must be {advice}")
        return height // self.downscale, width // self.downscale

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "VAEConfig":
        """From a diffusers `config.json`.

        Raises:
          PeaError: naming the fields whose values are not supported or not known.
        """
        for name, block_type in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            check_lists({name: config.get(name, ())}, [name])
            check_choice(name, config.get(name, ()), (block_type,))
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        public = {name: value for name, value in config.items() if name not in IGNORED}
        fields = read_fields(public, defaults=defaults, supported=SUPPORTED)
        check_widths(fields)
        check_kinds(fields, defaults)
        for name in ("down_block_types", "up_block_types"):
            per_block(name, config.get(name), len(fields["block_out_channels"]))
        return cls(**{**fields, "block_out_channels": tuple(fields["block_out_channels"])})
