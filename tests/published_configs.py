"""The `config.json` of the base models, autoencoders and ControlNets that people have, and small ones of their shape.

Facts of the published files; paths, versions and what only a pipeline reads are left out. What they were checked with:

| config | source |
|---|---|
| SDXL base, inpainting 0.1, fp16-fix VAE, ControlNets | copies of the files in public code, field by field |
| SDXL-Turbo, Playground v2, SD 1.5, SD 2.1; ControlNet SDXL canny, SD 1.5 canny | files saved from them, on the Hub |
| SSD-1B | layers: ComfyUI's table of models (comfy/model_detection.py), and the file of a relative on the Hub |
| Segmind-Vega | layers: the same table |
| Kolors | sizes: ComfyUI-Kolors-MZ, which loads the published file |

Nowhere seen, and so unverified: of SSD-1B, Segmind-Vega and Kolors what is neither layers nor sizes (taken from SDXL),
the numbers of parameters, `sd-1.5-inpainting`, `sd-1.5-shuffle` but for its `global_pool_conditions`, `sd-2.1-canny`.
"""

import inspect
from typing import Any

from diffusers import ControlNetModel

Config = dict[str, Any]

SDXL: Config = {
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 2048,
    "cross_attention_norm": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "sample_size": 128,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "upcast_attention": None,
    "use_linear_projection": True,
}
# Fields that came later.
SDXL_TURBO = SDXL | {
    "attention_type": "default",
    "dropout": 0.0,
    "reverse_transformer_layers_per_block": None,
    "sample_size": 64,
}
SD15: Config = {
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
UNETS: dict[str, Config] = {
    "sdxl-base-1.0": SDXL,
    "sdxl-turbo": SDXL_TURBO,
    # Saved through a moving average, which left its settings behind.
    "sdxl-inpainting-0.1": SDXL
    | {
        "in_channels": 9,
        "decay": 0.9999,
        "inv_gamma": 1.0,
        "min_decay": 0.0,
        "optimization_step": 37000,
        "power": 0.6666666666666666,
        "update_after_step": 0,
        "use_ema_warmup": False,
    },
    "playground-v2": SDXL | {"attention_type": "default", "dropout": 0.0},
    # ComfyUI: transformer_depth 0 0 2 2 4 4, transformer_depth_output (from the end) 4 4 10 2 1 1 0 0 0, middle -1.
    "ssd-1b": SDXL_TURBO
    | {
        "mid_block_type": "UNetMidBlock2D",
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
        "sample_size": 128,
        "transformer_layers_per_block": [[1], [2, 2], [4, 4]],
    },
    # ComfyUI: transformer_depth 0 0 1 1 2 2, transformer_depth_output 2 2 2 1 1 1 0 0 0, middle -1.
    "segmind-vega": SDXL_TURBO
    | {
        "mid_block_type": "UNetMidBlock2D",
        "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1],
        "sample_size": 128,
        "transformer_layers_per_block": [[1], [1, 1], [2, 2]],
    },
    # encoder_hid_proj 4096 -> 2048, adm_in_channels 5632 = 4096 + 6 * 256; depths as SDXL.
    "kolors": SDXL_TURBO
    | {
        "encoder_hid_dim": 4096,
        "encoder_hid_dim_type": "text_proj",
        "projection_class_embeddings_input_dim": 5632,
        "sample_size": 128,
    },
    "sd-1.5": SD15,
    "sd-1.5-inpainting": SD15 | {"in_channels": 9},
    "sd-2.1": SD15
    | {
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "dual_cross_attention": False,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "sample_size": 96,
        "upcast_attention": True,
        "use_linear_projection": True,
    },
}
# As their publishers give them, rounded.
PARAMETERS = {"sdxl-base-1.0": 2.6e9, "ssd-1b": 1.3e9, "segmind-vega": 0.745e9, "sdxl-canny": 1.25e9}

SD_VAE: Config = {
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
SDXL_VAE = SD_VAE | {"force_upcast": True, "sample_size": 1024, "scaling_factor": 0.13025}
VAES: dict[str, Config] = {
    "sd-1.5": SD_VAE,
    "sd-2.1": SD_VAE | {"sample_size": 768},
    "sdxl": SDXL_VAE,
    "sdxl-fp16-fix": SDXL_VAE | {"force_upcast": False, "latents_mean": None, "latents_std": None, "sample_size": 512},
}


def _controlnet(unet: Config) -> Config:
    known = inspect.signature(ControlNetModel.__init__).parameters
    return {name: value for name, value in unet.items() if name in known} | {
        "conditioning_embedding_out_channels": [16, 32, 96, 256],
        "controlnet_conditioning_channel_order": "rgb",
    }


CONTROLNETS: dict[str, Config] = {
    "sdxl-canny": _controlnet(SDXL) | {"conditioning_channels": 3, "global_pool_conditions": False},
    "sd-1.5-canny": _controlnet(SD15),
    "sd-1.5-shuffle": _controlnet(SD15) | {"global_pool_conditions": True},
    "sd-2.1-canny": _controlnet(UNETS["sd-2.1"]),
}


def small(config: Config) -> Config:
    """A UNet or ControlNet of the same architecture: a twentieth as wide, at most 2 transformer layers in a row."""
    heads = config["attention_head_dim"]
    result = config | {
        "attention_head_dim": [max(count // 5, 1) for count in heads] if isinstance(heads, list) else heads,
        "block_out_channels": [width // 20 for width in config["block_out_channels"]],
        "cross_attention_dim": 24,
        "norm_num_groups": 8,
    }
    for name in ("transformer_layers_per_block", "reverse_transformer_layers_per_block"):
        if config.get(name):
            result[name] = _at_most_two(config[name])
    if config.get("encoder_hid_dim"):
        result["encoder_hid_dim"] = 20
    if config.get("addition_embed_type"):
        result |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 10 + 6 * 8}
    if "conditioning_embedding_out_channels" in config:
        result["conditioning_embedding_out_channels"] = [2, 3, 4, 6]
    return result


def _at_most_two(layers: Any) -> Any:
    return [_at_most_two(entry) for entry in layers] if isinstance(layers, list) else min(layers, 2)
