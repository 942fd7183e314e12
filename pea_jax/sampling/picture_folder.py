"""A folder of numbered pictures, drawn by any number of processes, in any number of goes."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from pea_jax import processes
from pea_jax.errors import PeaError
from pea_jax.report import counting
from pea_jax.sampling.picture_files import GuideFiles
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.sampling.prompt_drawing import Drawing, check_all, draw_all
from pea_jax.text.conditioner import Conditioner
from pea_jax.threads import in_order
from pea_jax.whole_files import whole

SETTINGS, RECORDS = "generation.json", "metadata.jsonl"
WRITERS = 4  # threads that write while the next pictures are drawn
NO_GUIDES = GuideFiles({})


class PictureFolder:
    """`00000.png` and so on, a picture a drawing; `generation.json` says what they were drawn with, `metadata.jsonl`
    what each shows, in the layout of Hugging Face's imagefolder. The latter is there when all pictures are."""

    def __init__(self, path: pathlib.Path, wanted: Sequence[Drawing], settings: dict[str, Any]):
        self._path, self._wanted = path, wanted
        records = json.dumps([drawing.describe() for drawing in wanted], sort_keys=True)
        prompts = hashlib.sha256(records.encode()).hexdigest()
        self._settings = json.loads(json.dumps(dict(settings, prompts=prompts)))

    def check(self) -> None:
        """Refuses a folder that holds other pictures.

        Raises:
          PeaError: naming what is different.
        """
        try:
            found = dict(json.loads((self._path / SETTINGS).read_bytes()))
        except FileNotFoundError:
            if any(self._path.glob("*.png")):
                raise PeaError(f"{self._path}: holds pictures that were not drawn here; name another folder") from None
            return
        except (OSError, TypeError, ValueError) as error:
            raise PeaError(f"{self._path / SETTINGS}: cannot be read ({error}); name another folder") from error
        for name in [*self._settings, *found]:
            if found.get(name) != (wanted := self._settings.get(name)):
                before = f"{name}={_short(found.get(name))}, not {_short(wanted)}"
                raise PeaError(f"{self._path}: its pictures were drawn with {before}; name another folder")

    def begin(self) -> None:
        """Writes what the pictures are drawn with."""
        self._path.mkdir(parents=True, exist_ok=True)
        self._write(
            self._path / SETTINGS, lambda partial: partial.write_text(json.dumps(self._settings, indent=2) + "\n")
        )

    def missing(self, part: int = 0, parts: int = 1) -> list[Drawing]:
        """The drawings without picture, of every `parts`-th from `part` on."""
        return [drawing for drawing in self._wanted[part::parts] if not self._picture(drawing).exists()]

    def saves(self, drawn: Iterable[tuple[Drawing, np.ndarray]]) -> Iterator[Callable[[], None]]:
        """A call for each picture that saves it; it is there as a whole or not at all."""
        for drawing, picture in drawn:
            save = functools.partial(Image.fromarray(picture).save, format="PNG")
            yield functools.partial(self._write, self._picture(drawing), save)

    def finish(self) -> None:
        """Writes the records, when all pictures are there."""
        records = map(self._record, self._wanted)
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        self._write(self._path / RECORDS, lambda partial: partial.write_text(lines, encoding="utf-8"))

    def pictures(self) -> list[pathlib.Path]:
        return [self._picture(drawing) for drawing in self._wanted]

    def _record(self, drawing: Drawing) -> dict[str, Any]:
        """With the name of its own file: prompts that are the records of other pictures come with those of theirs."""
        others = {name: value for name, value in drawing.describe().items() if name != "file_name"}
        return dict(file_name=self._picture(drawing).name, **others)

    def _picture(self, drawing: Drawing) -> pathlib.Path:
        return self._path / f"{drawing.row:0{max(5, len(str(len(self._wanted) - 1)))}}.png"

    def _write(self, path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
        try:
            with whole(path) as partial:
                write(partial)
        except OSError as error:
            raise PeaError(
                f"{path}: cannot be written ({error.strerror or error}); make room, and start again"
            ) from error


def draw_folder(
    path: pathlib.Path,
    pipeline: TextToImage,
    conditioner: Conditioner,
    wanted: Sequence[Drawing],
    sampling: Sampling,
    guides: GuideFiles = NO_GUIDES,
    settings: Mapping[str, Any] | None = None,
) -> list[pathlib.Path]:
    """Draws what is missing of `wanted` into a folder; each of several processes every n-th, on its own devices.

    Args:
      path: the folder, which all processes see.
      pipeline, conditioner: on a mesh of this process's devices.
      wanted: all drawings, from row 0 on.
      sampling, guides: how they are drawn.
      settings: what else they depend on, by name: a folder that was begun with others is refused.

    Returns:
      The pictures of all drawings.

    Raises:
      PeaError: something does not fit (nothing is written then), or the folder holds other pictures.
    """
    depends = dict(settings or {}, **vars(sampling), guides=guides.describe())
    # Does not change what is drawn.
    del depends["batch_size"]
    folder = PictureFolder(path, wanted, depends)
    folder.check()
    check_all(pipeline, wanted, sampling, guides)
    if processes.is_first():
        folder.begin()
    processes.wait_for_all("the folder")
    missing = folder.missing(jax.process_index(), jax.process_count())
    saves = folder.saves(draw_all(pipeline, conditioner, missing, sampling, guides))
    with counting(len(missing), "drawing") as advance:
        for _ in in_order(saves, threads=WRITERS):
            advance(1)
    processes.wait_for_all("the pictures")
    if processes.is_first():
        folder.finish()
    return folder.pictures()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
