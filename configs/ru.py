"""Russian.

The text encoder is that of ruCLIP (arXiv 2202.10784), ViT-L/14 at 336 pixels: 77 tokens, 768 wide. XLM-R goes as well:
`--config.text_encoder.id=laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k`.

`configs/ru.py`        Stable Diffusion XL (preset `sdxl`)
`configs/ru.py:sd15`   Stable Diffusion 1.5

The recipe is the published one (PEA-Diffusion, arXiv 2311.17086; figures of its authors). `sdxl`: batches of 240 on 24
GPUs, about 1,600 GPU-hours. `sd15`: batches of 320 on 8 GPUs, hours not published.
Training data are webdataset shards of pictures with `caption_ru`, or `caption_en` and `caption_ru`: any you have, or
translated pairs of LAION (laion2B-multi-joined-translated-to-en).
To download, the base model of the preset (docs/training.md has a command that takes less of it) and the text encoder:

    hf download stabilityai/stable-diffusion-xl-base-1.0
    hf download stable-diffusion-v1-5/stable-diffusion-v1-5
    hf download ai-forever/ruclip-vit-large-patch14-336

    python -m pea_jax.train --config configs/ru.py --config.data.train='shards/ru-{00000..00999}.tar' --workdir runs/ru

With `--config configs/ru.py:sd15 --workdir runs/ru-sd15` it is Stable Diffusion 1.5.

`configs/ru.py:emoji`  the embedded English model (64x64 pictures), everything on disk, 10 minutes on two CPU cores:

    python -m pea_jax.train --config configs/ru.py:emoji --workdir runs/ru-emoji
"""

from ml_collections import ConfigDict

from pea_jax import config

ENCODER = "ai-forever/ruclip-vit-large-patch14-336"


def get_config(preset: str = "sdxl") -> ConfigDict:
    presets = {
        "sdxl": lambda: config.sdxl("ru", ENCODER),
        "sd15": lambda: config.sd15("ru", ENCODER),
        "emoji": lambda: config.emoji("ru"),
    }
    return config.choose(preset, presets)
