"""The `config.json` of every network that takes part in a training step: as files give it, or of a size kept here."""

import dataclasses
import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from benchmarks import random_unet

Config = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Networks:
    """Parsed `config.json` files; `student` is the text encoder of the new language."""

    unet: Config
    vae: Config
    text_encoder: Config
    text_encoder_2: Config
    student: Config
    scheduler: Config

    @classmethod
    def of_config(cls, config: ConfigDict) -> "Networks":
        """Those of the folders that a config names."""
        from pea_jax.weights.locations import locate, locate_base

        folder = pathlib.Path(locate_base(config.base_model, config.base_model_config).configs)
        parts = {field.name: folder / field.name / "config.json" for field in dataclasses.fields(cls)}
        parts["scheduler"] = folder / "scheduler" / "scheduler_config.json"
        parts["student"] = pathlib.Path(locate(config.text_encoder.id, "")) / "config.json"
        return cls(**{name: json.loads(path.read_text()) for name, path in parts.items()})

    @property
    def prompt_dim(self) -> int:
        """Width of the teacher's prompt embeddings."""
        return self.text_encoder["hidden_size"] + self.text_encoder_2["hidden_size"]

    @property
    def pooled_dim(self) -> int:
        return self.text_encoder_2["projection_dim"]

    @property
    def downscale(self) -> int:
        """Pixels a side of one latent."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)


_CLIP = dict(
    model_type="clip_text_model", hidden_act="gelu", layer_norm_eps=1e-5, max_position_embeddings=77,
    vocab_size=49408, bos_token_id=0, eos_token_id=2,
)  # fmt: skip
_VAE = dict(latent_channels=4, act_fn="silu", force_upcast=True, scaling_factor=0.13025, sample_size=1024)
_SCHEDULER = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
_XLM_R = dict(
    model_type="xlm-roberta", hidden_act="gelu", layer_norm_eps=1e-5, max_position_embeddings=514, pad_token_id=1,
    type_vocab_size=1,
)  # fmt: skip

# Stable Diffusion XL with XLM-R large for the new language, as the published multilingual training has it; and a toy.
SIZES = {
    "sdxl": Networks(
        unet=random_unet.SDXL,
        vae=_VAE
        | dict(down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
        | dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2, norm_num_groups=32),
        text_encoder=_CLIP
        | dict(hidden_act="quick_gelu", hidden_size=768, intermediate_size=3072, projection_dim=768)
        | dict(num_attention_heads=12, num_hidden_layers=12),
        text_encoder_2=_CLIP
        | dict(hidden_size=1280, intermediate_size=5120, projection_dim=1280)
        | dict(num_attention_heads=20, num_hidden_layers=32),
        student=_XLM_R
        | dict(hidden_size=1024, intermediate_size=4096, vocab_size=250002)
        | dict(num_attention_heads=16, num_hidden_layers=24),
        scheduler=_SCHEDULER,
    ),
    "tiny": Networks(
        unet=random_unet.TINY
        | dict(down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), block_out_channels=(8, 16))
        | dict(up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(1, 2))
        | dict(cross_attention_dim=24, norm_num_groups=4, layers_per_block=1)
        | dict(addition_time_embed_dim=4, projection_class_embeddings_input_dim=16 + 24),
        vae=_VAE
        | dict(down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
        | dict(block_out_channels=[4, 8], layers_per_block=1, norm_num_groups=2),
        text_encoder=_CLIP
        | dict(hidden_size=8, intermediate_size=16, projection_dim=8, vocab_size=64)
        | dict(num_attention_heads=2, num_hidden_layers=2),
        text_encoder_2=_CLIP
        | dict(hidden_size=16, intermediate_size=16, projection_dim=16, vocab_size=64)
        | dict(num_attention_heads=2, num_hidden_layers=2),
        student=_XLM_R
        | dict(hidden_size=12, intermediate_size=24, vocab_size=64)
        | dict(num_attention_heads=2, num_hidden_layers=1),
        scheduler=_SCHEDULER,
    ),
}
