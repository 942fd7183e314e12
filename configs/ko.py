"""Korean.

The text encoder is a CLIP ViT-L/14 of Korean: 77 tokens, 768 wide. koclip (koclip/koclip-base-pt) goes as well.

`configs/ko.py`        Stable Diffusion XL (preset `sdxl`)
`configs/ko.py:sd15`   Stable Diffusion 1.5

The recipe is the published one (PEA-Diffusion, arXiv 2311.17086; figures of its authors). `sdxl`: batches of 240 on 24
GPUs, about 1,600 GPU-hours; Korean took them 1.6 million samples. `sd15`: batches of 320 on 8 GPUs, hours not
published. Training data are webdataset shards of pictures with `caption_ko`, or `caption_en` and `caption_ko`: any you
have, or translated pairs of LAION (laion2B-multi-joined-translated-to-en).
To download, the base model of the preset (docs/training.md has a command that takes less of it) and the text encoder:

    hf download stabilityai/stable-diffusion-xl-base-1.0
    hf download stable-diffusion-v1-5/stable-diffusion-v1-5
    hf download Bingsu/clip-vit-large-patch14-ko

    python -m pea_jax.train --config configs/ko.py --config.data.train='shards/ko-{00000..00999}.tar' --workdir runs/ko

With `--config configs/ko.py:sd15 --workdir runs/ko-sd15` it is Stable Diffusion 1.5.

`configs/ko.py:emoji`  the embedded English model (64x64 pictures), everything on disk, 10 minutes on two CPU cores:

    python -m pea_jax.train --config configs/ko.py:emoji --workdir runs/ko-emoji
"""

from ml_collections import ConfigDict

from pea_jax import config

ENCODER = "Bingsu/clip-vit-large-patch14-ko"


def get_config(preset: str = "sdxl") -> ConfigDict:
    presets = {
        "sdxl": lambda: config.sdxl("ko", ENCODER),
        "sd15": lambda: config.sd15("ko", ENCODER),
        "emoji": lambda: config.emoji("ko"),
    }
    return config.choose(preset, presets)
