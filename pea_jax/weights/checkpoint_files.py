"""The weights in a file, or in a model's folder: one or several behind an index, safetensors, pickled or of Flax."""

import json
import pathlib
from collections.abc import Callable, Mapping

from pea_jax.errors import PeaError
from pea_jax.weights.abstract import values_left_out
from pea_jax.weights.config_files import one_line
from pea_jax.weights.pickled_files import open_pickled
from pea_jax.weights.safetensors_files import open_safetensors
from pea_jax.weights.stored import StoredArray

PICKLED_STEMS = {"model": "pytorch_model"}  # of transformers; diffusers has one stem for both formats
FLAX_STEMS = {"model": "flax_model"}  # of transformers; the Flax files of diffusers have other names for the tensors
Opener = Callable[[pathlib.Path], Mapping[str, StoredArray]]


def open_file(path: pathlib.Path) -> Mapping[str, StoredArray]:
    """The tensors of one file: by its ending safetensors, else pickled.

    Raises:
      PeaError: as `open_safetensors` and `open_pickled`.
    """
    return open_safetensors(path) if path.suffix == ".safetensors" else open_pickled(path)


def open_checkpoint(folder: pathlib.Path, stem: str) -> tuple[pathlib.Path, dict[str, StoredArray]]:
    """The tensors of `folder/stem`, and the path of the file, or of the index, that they come from.

    Safetensors before pickled files, those before Flax's; a half-precision variant only where there is nothing else in
    that format. Within `without_values` no file is looked at, and there are no tensors.

    Raises:
      PeaError: if there is no such file, or one is not readable or does not hold what the index says.
    """
    if values_left_out():
        return folder / stem, {}
    pickled_stem = PICKLED_STEMS.get(stem, stem)
    return (
        _open(folder, stem, "safetensors", open_safetensors)
        or _open(folder, pickled_stem, "bin", open_pickled)
        or (_open(folder, FLAX_STEMS[stem], "msgpack", _open_flax) if stem in FLAX_STEMS else None)
        or _refuse(folder, stem, pickled_stem)
    )


def _open(
    folder: pathlib.Path, stem: str, suffix: str, opener: Opener
) -> tuple[pathlib.Path, dict[str, StoredArray]] | None:
    for variant in ("", ".fp16"):
        path = folder / f"{stem}{variant}.{suffix}"
        if path.is_file():
            return path, dict(opener(path))
        for name in (f"{stem}.{suffix}.index{variant}.json", f"{stem}{variant}.{suffix}.index.json"):
            if (index := folder / name).is_file():
                return index, _open_shards(index, opener)
    return None


def _open_flax(path: pathlib.Path) -> Mapping[str, StoredArray]:
    from pea_jax.weights.flax_files import open_flax  # Flax, and so JAX, for such a file alone

    return open_flax(path)


def _refuse(folder: pathlib.Path, stem: str, pickled_stem: str) -> tuple[pathlib.Path, dict[str, StoredArray]]:
    found = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ""
    raise PeaError(f"{folder}: neither {stem}.safetensors nor {pickled_stem}.bin (found {found or 'nothing'})")


def _open_shards(index: pathlib.Path, opener: Opener) -> dict[str, StoredArray]:
    weight_map = _weight_map(index)
    tensors: dict[str, StoredArray] = {}
    for name in sorted(set(weight_map.values())):
        tensors.update(opener(index.parent / name))
    if wrong := sorted(weight_map.keys() ^ tensors.keys()):
        raise PeaError(f"{index}: index and files differ in {len(wrong)} tensors ({wrong[0]}); download them again")
    return tensors


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PeaError(f"{index}: not an index of weight files ({one_line(error)})") from error
    if not isinstance(weight_map, dict):
        raise PeaError(f"{index}: not an index of weight files (weight_map is no object)")
    if odd := [name for name in weight_map.values() if not isinstance(name, str) or pathlib.Path(name).name != name]:
        raise PeaError(f"{index}: {odd[0]!r} is not the name of a file in the same folder")
    return weight_map
