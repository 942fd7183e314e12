"""The `config.json` files that a single-file checkpoint leaves out, as published with the three base models.

Only what departs from the defaults; tests hold them against the shapes of the published checkpoints.
"""

from typing import Any

DOWN, CROSS_DOWN, UP, CROSS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"

# Width of the text states that the UNet attends to: which base model a checkpoint is of.
BASES = {768: "sd15", 1024: "sd21", 2048: "sdxl"}

VAE: dict[str, Any] = dict(
    block_out_channels=[128, 256, 512, 512],
    down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4,
    layers_per_block=2,
)
CLIP_L: dict[str, Any] = dict(
    architectures=["CLIPTextModel"],
    hidden_size=768,
    intermediate_size=3072,
    projection_dim=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    eos_token_id=2,
)
OPEN_CLIP_H: dict[str, Any] = dict(
    architectures=["CLIPTextModel"],
    hidden_size=1024,
    intermediate_size=4096,
    projection_dim=512,
    num_hidden_layers=23,
    num_attention_heads=16,
    hidden_act="gelu",
    eos_token_id=2,
)
OPEN_CLIP_BIGG: dict[str, Any] = dict(
    architectures=["CLIPTextModelWithProjection"],
    hidden_size=1280,
    intermediate_size=5120,
    projection_dim=1280,
    num_hidden_layers=32,
    num_attention_heads=20,
    hidden_act="gelu",
    eos_token_id=2,
)
CONFIGS: dict[str, dict[str, dict[str, Any]]] = {
    "sd15": {
        "unet": dict(cross_attention_dim=768, attention_head_dim=8),
        "vae": VAE | dict(scaling_factor=0.18215),
        "text_encoder": CLIP_L,
    },
    "sd21": {
        "unet": dict(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True),
        "vae": VAE | dict(scaling_factor=0.18215),
        "text_encoder": OPEN_CLIP_H,
    },
    "sdxl": {
        "unet": dict(
            block_out_channels=[320, 640, 1280],
            down_block_types=[DOWN, CROSS_DOWN, CROSS_DOWN],
            up_block_types=[CROSS_UP, CROSS_UP, UP],
            transformer_layers_per_block=[1, 2, 10],
            attention_head_dim=[5, 10, 20],
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        "vae": VAE | dict(scaling_factor=0.13025),
        "text_encoder": CLIP_L,
        "text_encoder_2": OPEN_CLIP_BIGG,
    },
}
