"""Training shards with fewer pairs, worse captions or native samples: what a study of the data changes."""

import dataclasses
import hashlib
import io
import json
import pathlib
import random
import tarfile
from typing import Any

import numpy as np
from PIL import Image

from pea_jax.command import whole_file
from pea_jax.data import open_source
from pea_jax.data.samples import Sample


@dataclasses.dataclass(frozen=True)
class Records:
    """How the records of a training set are changed; by default not at all.

    Which concepts are taken, and what is made of each, depends on the seed of the run. Versions of one concept (its
    family) are treated alike.

    Attributes:
      share: of the concepts that are kept.
      shuffled_keywords: share of the concepts whose keywords in the language are those of another concept.
      noise: chance of a word of the caption and of the keywords in the language to be lost, to change places with the
        next one, or to give way to a word of another concept, as careless translation has it.
      others_pictures: share of the concepts whose picture is that of another one.
      text_alone: whether there are no pictures.
      native: share of the concepts that lose their English, and are learnt from the picture alone.
      native_keys: of samples that are native whatever `native` says.
      left_out: keys of samples that are not there at all.
      repainted: whether the pictures are in other colours (`repaint`): a style to be learnt.
      more: shards that are added as pairs, with spaces between.
      native_more: shards that are added as native samples, likewise.
    """

    share: float = 1.0
    shuffled_keywords: float = 0.0
    noise: float = 0.0
    others_pictures: float = 0.0
    text_alone: bool = False
    native: float = 0.0
    native_keys: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    repainted: bool = False
    more: str = ""
    native_more: str = ""


def write(path: pathlib.Path, shards: str, language: str, records: Records, seed: int) -> None:
    """Write one shard, or a table of texts, of what `records` makes of `shards`."""
    samples = _read(f"{shards} {records.more}", path.parent)
    if records.native_more:
        native = _read(records.native_more, path.parent)
        keys = tuple(sample.key for sample in native)
        samples, records = samples + native, dataclasses.replace(records, native_keys=records.native_keys + keys)
    found = changed(samples, language, records, seed)
    with whole_file("--workdir", path) as partial:
        if records.text_alone:
            lines = (json.dumps(sample.record, ensure_ascii=False) + "\n" for sample in found)
            partial.write_text("".join(lines), encoding="utf-8")
            return
        with tarfile.open(partial, "w") as tar:
            for sample in found:
                _add(tar, f"{sample.key}.png", sample.image or b"")
                _add(tar, f"{sample.key}.json", json.dumps(sample.record, ensure_ascii=False).encode())


def _read(shards: str, folder: pathlib.Path) -> list[Sample]:
    source = open_source(shards, str(folder / "indices"))
    return [source[number] for number in range(len(source))]


def changed(samples: list[Sample], language: str, records: Records, seed: int) -> list[Sample]:
    """The samples that are left, each with its new record and picture."""
    kept = [
        sample
        for sample in samples
        if sample.key not in records.left_out and _draw(seed, "share", sample.family) < records.share
    ]
    others = kept[:]
    random.Random(seed).shuffle(others)
    vocabulary = sorted({word for sample in samples for word in sample.caption(language).split()})
    return [
        dataclasses.replace(
            sample,
            image=_image(sample, other, records, seed),
            record=_record(sample, other, vocabulary, language, records, seed),
        )
        for sample, other in zip(kept, others, strict=True)
    ]


def _image(sample: Sample, other: Sample, records: Records, seed: int) -> bytes | None:
    if records.repainted:
        return _repainted(sample)
    return (other if _draw(seed, "pictures", sample.family) < records.others_pictures else sample).image


def _record(
    sample: Sample, other: Sample, vocabulary: list[str], language: str, records: Records, seed: int
) -> dict[str, Any]:
    record, name, words = dict(sample.record), f"caption_{language}", f"keywords_{language}"
    if _draw(seed, "keywords", sample.family) < records.shuffled_keywords:
        record[words] = other.keywords(language)
    if records.noise:
        rng = random.Random(f"{seed}:noise:{sample.key}")
        record[name] = noised(record[name], vocabulary, records.noise, rng)
        record[words] = [noised(word, vocabulary, records.noise, rng) for word in record[words]]
    if sample.key in records.native_keys or _draw(seed, "native", sample.family) < records.native:
        record["native"] = True
        del record["caption_en"], record["keywords_en"]
    return record


def noised(text: str, vocabulary: list[str], rate: float, rng: random.Random) -> str:
    """`text` with each word damaged at the chance `rate`; a text never becomes empty.

    Where words have no spaces between them, as in Chinese, the text is one word.
    """
    words, result = text.split(), list[str]()
    for number, word in enumerate(words):
        kind = rng.choice(("lost", "moved", "replaced")) if rng.random() < rate else "kept"
        if kind == "replaced" or (kind == "lost" and len(words) == 1):
            result.append(rng.choice(vocabulary))
        elif kind == "moved" and number:
            result.insert(-1, word)
        elif kind != "lost":
            result.append(word)
    return " ".join(result) or text


def repaint(pixels: np.ndarray) -> np.ndarray:
    """RGB pictures in which green is where red was, blue where green was, red where blue was; grey stays."""
    return np.ascontiguousarray(pixels[..., [2, 0, 1]])


def _repainted(sample: Sample) -> bytes:
    file = io.BytesIO()
    Image.fromarray(repaint(sample.pixels())).save(file, "PNG")
    return file.getvalue()


def _draw(seed: int, what: str, family: str) -> float:
    """Uniform in [0, 1), the same for all versions of a concept; a larger share holds every smaller one."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{what}:{family}".encode()).digest()[:8], "big") / 2**64


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
