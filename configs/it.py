"""Italian.

The text encoder is that of clip-italian (arXiv 2108.08688), an Italian BERT: 77 tokens, 768 wide.

`configs/it.py`        Stable Diffusion XL (preset `sdxl`)
`configs/it.py:sd15`   Stable Diffusion 1.5

The recipe is the published one (PEA-Diffusion, arXiv 2311.17086; figures of its authors). `sdxl`: batches of 240 on 24
GPUs, about 1,600 GPU-hours. `sd15`: batches of 320 on 8 GPUs, hours not published.
Training data are webdataset shards of pictures with `caption_it`, or `caption_en` and `caption_it`: any you have, or
translated pairs of LAION (laion2B-multi-joined-translated-to-en).
To download, the base model of the preset (docs/training.md has a command that takes less of it) and the text encoder:

    hf download stabilityai/stable-diffusion-xl-base-1.0
    hf download stable-diffusion-v1-5/stable-diffusion-v1-5
    hf download clip-italian/clip-italian

    python -m pea_jax.train --config configs/it.py --config.data.train='shards/it-{00000..00999}.tar' --workdir runs/it

With `--config configs/it.py:sd15 --workdir runs/it-sd15` it is Stable Diffusion 1.5.

`configs/it.py:emoji`  the embedded English model (64x64 pictures), everything on disk, 10 minutes on two CPU cores:

    python -m pea_jax.train --config configs/it.py:emoji --workdir runs/it-emoji
"""

from ml_collections import ConfigDict

from pea_jax import config

ENCODER = "clip-italian/clip-italian"


def get_config(preset: str = "sdxl") -> ConfigDict:
    presets = {
        "sdxl": lambda: config.sdxl("it", ENCODER),
        "sd15": lambda: config.sd15("it", ENCODER),
        "emoji": lambda: config.emoji("it"),
    }
    return config.choose(preset, presets)
