"""Japanese.

The text encoder is that of rinna's Japanese CLOOB, the better of its two models: 77 tokens, 768 wide. Its tokenizer
lies in another model's repository.

`configs/ja.py`        Stable Diffusion XL (preset `sdxl`)
`configs/ja.py:sd15`   Stable Diffusion 1.5

The recipe is the published one (PEA-Diffusion, arXiv 2311.17086; figures of its authors). `sdxl`: batches of 240 on 24
GPUs, about 1,600 GPU-hours. `sd15`: batches of 320 on 8 GPUs, hours not published.
Training data are webdataset shards of pictures with `caption_ja`, or `caption_en` and `caption_ja`: any you have, or
translated pairs of LAION (laion2B-multi-joined-translated-to-en).
To download, the base model of the preset (docs/training.md has a command that takes less of it) and the text encoder:

    hf download stabilityai/stable-diffusion-xl-base-1.0
    hf download stable-diffusion-v1-5/stable-diffusion-v1-5
    hf download rinna/japanese-cloob-vit-b-16 --local-dir ./models/japanese-cloob-vit-b-16
    hf download rinna/japanese-roberta-base spiece.model --local-dir ./models/japanese-cloob-vit-b-16

    python -m pea_jax.train --config configs/ja.py --config.data.train='shards/ja-{00000..00999}.tar' --workdir runs/ja

With `--config configs/ja.py:sd15 --workdir runs/ja-sd15` it is Stable Diffusion 1.5.

`configs/ja.py:emoji`  the embedded English model (64x64 pictures), everything on disk, 10 minutes on two CPU cores:

    python -m pea_jax.train --config configs/ja.py:emoji --workdir runs/ja-emoji
"""

from ml_collections import ConfigDict

from pea_jax import config

ENCODER = "./models/japanese-cloob-vit-b-16"  # without the dot it would be a name of the Hub


def get_config(preset: str = "sdxl") -> ConfigDict:
    presets = {
        "sdxl": lambda: config.sdxl("ja", ENCODER),
        "sd15": lambda: config.sd15("ja", ENCODER),
        "emoji": lambda: config.emoji("ja"),
    }
    return config.choose(preset, presets)
