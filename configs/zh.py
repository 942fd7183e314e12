"""Chinese, the language that PEA-Diffusion was published with.

| preset | text encoder | tokens | width |
|---|---|---|---|
| `sdxl` | Chinese-CLIP ViT-H/14 (arXiv 2211.01335) | 64 | 1024 |
| `sd15` | the same, for Stable Diffusion 1.5 | 64 | 1024 |
| `mul_clip` | OpenCLIP ViT-H/14 with XLM-R, about 100 languages (arXiv 2212.07143) | 77 | 1024 |
| `mt5` | mT5-XL (arXiv 2010.11934) | 77 | 2048 |
| `alt_clip` | AltCLIP (arXiv 2211.06679) | 77 | 768 |
| `mul_clip+chinese_clip` | XLM-R and Chinese-CLIP side by side | 64 | 2048 |

The recipe is the published one (PEA-Diffusion, arXiv 2311.17086; figures of its authors). `sdxl`: batches of 240 on 24
GPUs, about 1,600 GPU-hours; the same with any of the other encoders, whose hours are not published. `sd15`: batches of
320 on 8 GPUs, hours not published. Training data are webdataset shards of pictures with `caption_zh`, or `caption_en`
and `caption_zh`: any you have, or translated pairs of LAION (laion2B-multi-joined-translated-to-en). WuKong has the
Chinese culture: `--config.data.caption_fields.native=caption` where its captions have that name. All Chinese ones are
put into simplified script (`pip install "pea_jax[chinese]"`).
To download, the base model (docs/training.md has a command that takes less of it), for all but `sd15` the first:

    hf download stabilityai/stable-diffusion-xl-base-1.0
    hf download stable-diffusion-v1-5/stable-diffusion-v1-5

and the text encoder: of `sdxl` and `sd15`; of `mul_clip` (`mul_clip+chinese_clip` takes these two); of `mt5`; of
`alt_clip`:

    hf download OFA-Sys/chinese-clip-vit-huge-patch14
    hf download laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k
    hf download google/mt5-xl
    hf download BAAI/AltCLIP

    python -m pea_jax.train --config configs/zh.py --config.data.train='shards/zh-{00000..00999}.tar' --workdir runs/zh

The others go the same way: `--config configs/zh.py:mul_clip --workdir runs/zh-mul_clip`.

`configs/zh.py:emoji`  the embedded English model (64x64 pictures), everything on disk, 10 minutes on two CPU cores:

    python -m pea_jax.train --config configs/zh.py:emoji --workdir runs/zh-emoji
"""

from ml_collections import ConfigDict

from pea_jax import config

CHINESE_CLIP = "OFA-Sys/chinese-clip-vit-huge-patch14"
MUL_CLIP = "laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k"


def get_config(preset: str = "sdxl") -> ConfigDict:
    both = f"{MUL_CLIP} + {CHINESE_CLIP}"
    presets = {
        "sdxl": lambda: config.sdxl("zh", CHINESE_CLIP, context_length=64),
        "sd15": lambda: config.sd15("zh", CHINESE_CLIP, context_length=64),
        "mul_clip": lambda: config.sdxl("zh", MUL_CLIP, hidden_dim=2048),
        "mt5": lambda: config.sdxl("zh", "google/mt5-xl", hidden_dim=2048),
        "alt_clip": lambda: config.sdxl("zh", "BAAI/AltCLIP", hidden_dim=2048),
        "mul_clip+chinese_clip": lambda: config.sdxl("zh", both, context_length=64, hidden_dim=2048),
        "emoji": lambda: config.emoji("zh"),
    }
    return config.choose(preset, presets)
