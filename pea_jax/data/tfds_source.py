"""Samples in a tensorflow-datasets folder, as `to_tfds` writes it: ArrayRecord, read without TensorFlow.

Captions are sequences of languages and texts, so that one schema serves every language. The flag, the sizes and the
scores have columns of their own for whoever reads the set with other programs; `record` has all fields but the captions
as JSON, which keeps what columns of fixed types would lose: exact numbers, nested values, what only some samples have.
"""

import json
import os
from typing import Any

from pea_jax.data import open_files, storage
from pea_jax.data.samples import Part, Sample
from pea_jax.errors import BadSample, PeaError

INFO = ("dataset_info.json", "features.json")
CAPTION = "caption_"


def import_tfds(path: str) -> Any:
    """The library.

    Raises:
      PeaError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise PeaError(
            f"{path}: a tensorflow-datasets folder needs that library; pip install 'pea_jax[tfds]' ({error})"
        ) from error
    return tensorflow_datasets


class TfdsSource:
    """A `grain` random-access data source: `source[n]` is a `Sample`. It holds no bytes a sample.

    `source[n]` raises `BadSample` where a record cannot be read.

    Args:
      folder: the one with `dataset_info.json`.
      split: of the set.

    Raises:
      PeaError: the library is missing, the folder is damaged or was not written by `to_tfds`, has no such split, or has
        more files than the system lets a process hold open.
    """

    def __init__(self, folder: str, split: str = "train"):
        tfds = import_tfds(folder)
        try:
            builder = tfds.builder_from_directory(folder)
            if missing := {"image", "key", "captions", "record"} - set(builder.info.features):
                raise PeaError(f"{folder}: no {', '.join(sorted(missing))} among its features; convert it with to_tfds")
            if split not in builder.info.splits:
                raise PeaError(f"{folder}: no split {split}; there are {', '.join(builder.info.splits) or 'none'}")
            open_files.allow(len(builder.info.splits[split].filenames), folder)
            self._data = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
            count = len(self._data)
        except PeaError:
            raise
        except Exception as error:  # whatever the library stumbles over in a damaged folder
            raise PeaError(f"{folder}: cannot be read ({_line(error)}); convert the data again") from error
        self._folder = folder
        stamps = [storage.find_file(f"{folder}/{name}") for name in INFO]
        self.parts = [Part(folder, " ".join(file.stamp for file in stamps if file), count)]

    def __len__(self) -> int:
        return self.parts[0].count

    def __getitem__(self, number: int) -> Sample:
        number = range(len(self))[number]
        try:
            example = self._data[number]
            captions = example["captions"]
            texts = zip(captions["language"], captions["text"], strict=True)
            record = json.loads(example["record"])
            record |= {CAPTION + language.decode(): text.decode() for language, text in texts}
            return Sample(self._folder, example["key"].decode(), example["image"], record)
        except Exception as error:  # a damaged record
            raise BadSample(f"{self._folder}: record {number}: cannot be read ({_line(error)})") from error

    def head(self, number: int) -> Sample:
        """The same: a record is read as a whole."""
        return self[number]


def is_tfds_folder(folder: str) -> bool:
    return all(os.path.isfile(f"{folder}/{name}") for name in INFO)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
