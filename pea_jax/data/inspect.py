"""Show what a run would see, before anyone pays for it.

    python -m pea_jax.data.inspect --config configs/ru.py:emoji --out sheet.png

Prints the sets, what the filters remove, where the captions come from and how long they are, the buckets, and what is
bad; the sheet has a few pictures, whole and as they are cropped. The look at all samples that this takes is kept, and
training need not look again.
"""

import pathlib

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags
from PIL import Image, ImageOps

from pea_jax import command
from pea_jax.config import check
from pea_jax.data.loader import Example, PixelExample, check_buckets
from pea_jax.data.samples import Sample
from pea_jax.data.skipping import first_good
from pea_jax.distill.overview import tables
from pea_jax.distill.training_set import TrainingSet, caption_rules, check_usable, look_at
from pea_jax.errors import PeaError
from pea_jax.grids import save_grid, wrapped
from pea_jax.report import console

CONFIG = config_flags.DEFINE_config_file("config", None, "Whose training data, e.g. configs/ru.py:emoji")
OUT = flags.DEFINE_string("out", None, "PNG to write, with pictures as they are cropped")

PICTURES, SIDE = 12, 192  # rows of the sheet; pixels


def main() -> None:
    if CONFIG.value is None:
        raise PeaError("--config is needed, e.g. --config configs/ru.py:emoji")
    config = CONFIG.value
    check(config)
    if OUT.value:
        command.check_file("--out", pathlib.Path(OUT.value))
    chosen = look_at(config)
    for table in tables(config, chosen):
        console.print(table, "")
    check_usable(config, chosen)
    if OUT.value:
        write_sheet(config, chosen, OUT.value)
        console.print(f"{OUT.value}: pictures as they are cropped")
    check_buckets(chosen.rows_by_bucket, config.batch_size)


def write_sheet(config: ConfigDict, chosen: TrainingSet, path: str) -> None:
    """A row a sample, drawn from all: the whole picture, and two crops of it as training might take them.

    Raises:
      PeaError: it cannot be written, or no picture can be decoded.
    """
    rng = np.random.default_rng(config.seed)
    example = PixelExample(caption_rules(config), chosen.buckets, config.data.time_ids, config.data.max_pixels)

    def row_and_label(sample: Sample) -> tuple[list[np.ndarray], str]:
        draws = [example(sample, rng) for _ in range(2)]
        row = [_thumbnail(sample.rgb()), *(_thumbnail(_picture(draw["pixels"])) for draw in draws)]
        texts = _sizes(sample, draws[0]), draws[0]["caption"], draws[0]["caption_en"]
        return row, "\n".join(map(_wrapped, texts))

    numbers = rng.permutation(chosen.first(len(chosen.kept)))
    rows, labels = zip(*first_good(chosen.source, row_and_label, PICTURES, numbers), strict=True)
    titles = ["whole", "cropped", "cropped again"]
    with command.whole_file("--out", pathlib.Path(path)) as partial:
        save_grid(partial, rows, column_titles=titles, row_labels=labels)


def _sizes(sample: Sample, example: Example) -> str:
    (width, height), (crop_height, crop_width) = sample.size(), example["pixels"].shape[:2]
    whole = f"{width}x{height} to" if sample.has_picture else "no picture,"
    return f"{sample.key}: {whole} {crop_width}x{crop_height}"


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint((pixels + 1) * 127.5).astype(np.uint8))


def _thumbnail(image: Image.Image) -> np.ndarray:
    """The picture on a square of grey; of a line that would become thinner than a pixel, one."""
    least = -(-max(image.size) // SIDE)
    if min(image.size) < least:
        image = image.resize((max(image.width, least), max(image.height, least)))
    return np.asarray(ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.BICUBIC, color="lightgrey"))


def _wrapped(text: str) -> str:
    return wrapped(text, 48, max_lines=4, placeholder=" ...")


if __name__ == "__main__":
    command.run(main)
