"""Compute latents and text states of a training set once, instead of in every step.

    python -m pea_jax.precompute --config configs/ru.py:emoji --out cache

Training reads them with --config.data.cached=True --config.data.cache_dir=cache and then needs neither the autoencoder
nor the text encoders in its step. What was stopped goes on where it was; several processes share the work. Each
picture is cut out once and for all, where a step without a cache cuts it anew in each epoch.
"""

import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from pea_jax import command
from pea_jax import mesh as meshes
from pea_jax.config import check
from pea_jax.distill.data import common_training_set
from pea_jax.distill.models import load_encoders
from pea_jax.distill.precomputed import precompute
from pea_jax.errors import PeaError
from pea_jax.report import console

CONFIG = config_flags.DEFINE_config_file("config", None, "Whose training set, e.g. configs/ru.py:emoji")
OUT = flags.DEFINE_string("out", None, "Folder to write")


def main() -> None:
    if CONFIG.value is None or not OUT.value:
        raise PeaError("--config and --out are both needed, e.g. --config configs/ru.py:emoji --out cache")
    config, folder = CONFIG.value, pathlib.Path(OUT.value)
    check(config)
    command.check_folder("--out", folder)
    training = common_training_set(config)
    mesh = meshes.make_mesh(devices=jax.local_devices())
    written = precompute(config, load_encoders(config, mesh), training, folder, mesh)
    console.print(f"{folder}: {f'{written} parts written' if written else 'all parts are there'}")


if __name__ == "__main__":
    command.run(main)
