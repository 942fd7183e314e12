"""Russian.

`configs/ru.py:emoji`  the embedded English model (64x64 pictures), everything on disk, 10 minutes on two CPU cores:

    python -m pea_jax.train --config configs/ru.py:emoji --workdir runs/ru-emoji
"""

from ml_collections import ConfigDict

from pea_jax import config


def get_config(preset: str = "emoji") -> ConfigDict:
    return config.choose(preset, {"emoji": lambda: config.emoji("ru")})
