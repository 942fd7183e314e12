"""What each system draws for each prompt and seed, in folders that a second start completes."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.text.conditioner import Conditioner

SETTINGS = "settings.json"


@dataclasses.dataclass(frozen=True)
class System:
    """A name, and what each prompt's text is for it; None: it has none, and draws nothing.

    `origin` says what must be the same for pictures to be the same: the adapter's file, the model.
    """

    name: str
    conditioner: Conditioner
    texts: Sequence[str | None]
    origin: Mapping[str, Any]


class Pictures:
    """`folder/SYSTEM/SEED/00012.png`: of prompt number 12, drawn from the noise of that seed and number."""

    def __init__(self, folder: pathlib.Path, pipeline: TextToImage, sampling: Sampling, size: tuple[int, int]):
        self.folder, self._pipeline, self._sampling = folder, pipeline, sampling
        self._width, self._height = size

    def path(self, system: str, seed: int, number: int) -> pathlib.Path:
        return self.folder / _folder_name(system) / str(seed) / f"{number:05d}.png"

    def draw(self, system: System, seeds: Sequence[int]) -> None:
        """All that is not there yet.

        Raises:
          PeaError: the folder holds pictures that were drawn in another way, or cannot be written.
        """
        folder = self.folder / _folder_name(system.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim(folder / SETTINGS, system)
            for seed in seeds:
                (folder / str(seed)).mkdir(exist_ok=True)
                self._draw_seed(system, seed)
        except OSError as error:
            raise PeaError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error

    def _draw_seed(self, system: System, seed: int) -> None:
        texts = dict(enumerate(system.texts))
        missing = [i for i, text in texts.items() if text and not self.path(system.name, seed, i).exists()]
        size = self._sampling.batch_size
        sampling = dataclasses.replace(self._sampling, seed=seed)
        for start in range(0, len(missing), size):
            numbers = missing[start : start + size]
            conditioning = system.conditioner.encode_guided([texts[number] or "" for number in numbers])
            drawn = self._pipeline.generate(
                *conditioning, sampling, height=self._height, width=self._width, indices=numbers
            )
            for number, picture in zip(numbers, drawn, strict=True):
                path = self.path(system.name, seed, number)
                partial = path.with_suffix(".partial")
                Image.fromarray(picture).save(partial, format="PNG")
                os.replace(partial, path)

    def _claim(self, path: pathlib.Path, system: System) -> None:
        """Writes down how pictures are drawn, or compares it with what was written."""
        sampling = {name: value for name, value in vars(self._sampling).items() if name not in ("seed", "batch_size")}
        ours = dict(system.origin, texts=list(system.texts), size=[self._width, self._height], **sampling)
        ours = json.loads(json.dumps(ours))
        if path.exists():
            try:
                theirs = json.loads(path.read_text("utf-8"))
            except ValueError:
                theirs = {}
            if changed := sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)):
                raise PeaError(
                    f"{path.parent}: holds pictures that were drawn otherwise ({', '.join(changed)} changed); "
                    "remove it, or name another folder with --pictures"
                )
        else:
            path.write_text(json.dumps(ours, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _folder_name(system: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in system)
