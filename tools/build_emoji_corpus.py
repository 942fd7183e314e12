"""Builds the emoji corpus of `assets/emoji` again, byte for byte, from the packages it was made from.

    mkdir packages && cd packages
    for package in emoji-datasource-google@16.0.0 cldr-annotations-full@48.2.0 cldr-annotations-derived-full@48.2.0; do
        archive=$(npm pack --silent $package)
        mkdir ${archive%.tgz} && tar -xzf $archive -C ${archive%.tgz} --strip-components=1
    done
    cd .. && python -m tools.build_emoji_corpus --packages packages --out corpus
    diff corpus/index.json assets/emoji/index.json      # holds the sha256 of every shard

The bytes of a PNG depend on Pillow and the zlib inside it. Pillow 10.4.0, 11.0.0, 11.1.0, 11.3.0, 12.0.0, 12.3.0 and
13.0.0 (wheels for x86-64 Linux) were tried, and all give the shipped bytes.
"""

import collections
import dataclasses
import hashlib
import io
import json
import pathlib
import re
import tarfile
from collections.abc import Iterator, Sequence

from absl import app, flags
from PIL import Image

LANGUAGES = ("en", "ru", "zh", "ja", "ko", "it", "tr", "vi", "de", "uk")
SHARD_SIZE = 1000
SOURCE = "emoji-datasource-google@16.0.0 (Noto Emoji 2.048, Apache-2.0); CLDR 48.2 (Unicode-3.0)"

# Emoji that differ by gender or age only, though Unicode gives them unrelated code points: one concept family each.
SAME_CONCEPT = (
    ("1f385", "1f936", "1f9d1-200d-1f384"),
    ("1f466", "1f467", "1f9d2"),
    ("1f468", "1f469", "1f9d1"),
    ("1f46b", "1f46c", "1f46d", "1f9d1-200d-1f91d-200d-1f9d1"),
    ("1f474", "1f475", "1f9d3"),
    ("1f478", "1f934", "1fac5"),
    ("1f483", "1f57a"),
)
FAMILY = {key: f"={group[0].upper()}" for group in SAME_CONCEPT for key in group}

_PACKAGES = flags.DEFINE_string("packages", None, "folder with the unpacked packages", required=True)
_OUT = flags.DEFINE_string("out", None, "folder to write the shards and index.json to", required=True)


@dataclasses.dataclass(frozen=True)
class Emoji:
    """One picture of the corpus: its record, and its image as PNG."""

    record: dict
    png: bytes

    @property
    def shard(self) -> str:
        return f"{'flags' if self.record['is_flag'] else 'emoji'}-{self.record['split']}"

    @property
    def json(self) -> bytes:
        return json.dumps(self.record, ensure_ascii=False, sort_keys=True).encode()


def build(packages: pathlib.Path, out: pathlib.Path) -> dict:
    """Writes shards and `index.json`; returns the index."""
    entries = json.loads((_package(packages, "emoji-datasource-google") / "emoji.json").read_text())
    dropped = [reason for entry in entries if (reason := reason_to_drop(entry))]
    emojis = list(read_emojis(packages, [entry for entry in entries if not reason_to_drop(entry)]))
    out.mkdir(parents=True, exist_ok=True)
    index = {
        "stats": count(entries, dropped, emojis),
        "missing_captions": {},
        "langs": LANGUAGES,
        "families": len({emoji.record["family"] for emoji in emojis}),
        "png_bytes": sum(len(emoji.png) for emoji in emojis),
        "json_bytes": sum(len(emoji.json) for emoji in emojis),
        "shards": write_shards(out, emojis),
    }
    (out / "index.json").write_text(json.dumps(index, indent=1))
    return index


def read_emojis(packages: pathlib.Path, entries: list[dict]) -> Iterator[Emoji]:
    """Pictures with their records. KeyError: a language lacks a name for one."""
    images = _package(packages, "emoji-datasource-google") / "img" / "google" / "64"
    annotations = {language: read_annotations(packages, language) for language in LANGUAGES}
    for entry in entries:
        record = describe(entry)
        for language, names in annotations.items():
            annotation = names[without_variation(record["emoji"])]
            record[f"caption_{language}"] = annotation["tts"][0]
            record[f"keywords_{language}"] = annotation["default"]
        yield Emoji(record, encode_png(images / entry["image"]))


def read_annotations(packages: pathlib.Path, language: str) -> dict[str, dict]:
    """Emoji to its name ("tts") and keywords ("default"); those written by hand win over the derived ones."""
    found = {}
    for package, root in (
        ("cldr-annotations-derived-full", "annotationsDerived"),
        ("cldr-annotations-full", "annotations"),
    ):
        path = _package(packages, package) / root / language / "annotations.json"
        annotations = json.loads(path.read_text())[root]["annotations"]
        found |= {without_variation(emoji): annotation for emoji, annotation in annotations.items()}
    return found


def describe(entry: dict) -> dict:
    """The record of a picture, without its texts."""
    key = entry["unified"].lower()
    family = concept_family(key)
    return {
        "key": key,
        "emoji": "".join(chr(int(code, 16)) for code in key.split("-")),
        "group": entry["category"],
        "subgroup": entry["subcategory"],
        "emoji_version": entry["added_in"],
        "family": family,
        "split": "val" if _sha256(f"split:{family}") % 100 < 10 else "train",
        "is_flag": entry["category"] == "Flags",
        "source": SOURCE,
    }


def reason_to_drop(entry: dict) -> str | None:
    """Skin tones and hair are parts of pictures; names of mirrored people are composed, and malformed in places."""
    codes = entry["unified"].split("-")
    if entry["subcategory"] == "skin-tone":
        return "skin-tone component"
    if any("1F9B0" <= code <= "1F9B3" for code in codes):
        return "hair variant"
    return "facing right" if "27A1" in codes[1:] else None


def concept_family(key: str) -> str:
    """What a picture shows, whatever the gender: the code points without gender signs, men and women as persons."""
    if key in FAMILY:
        return FAMILY[key]
    codes = without_variation(key.upper())
    codes = re.sub("(-200D)?-?264[02]", "", codes)
    return re.sub("1F468|1F469|1F9D1", "P", codes) if "-200D-" in codes else codes


def without_variation(text: str) -> str:
    """Emoji or code points without the variation selector, which sources disagree on."""
    return text.replace("\ufe0f", "").replace("-FE0F", "")


def encode_png(path: pathlib.Path) -> bytes:
    """The picture on white, as RGB."""
    picture = Image.open(path).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    buffer = io.BytesIO()
    Image.alpha_composite(white, picture).convert("RGB").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_shards(out: pathlib.Path, emojis: Sequence[Emoji]) -> list[dict]:
    """Shards of at most 1,000 pictures, in the order of their keys' hashes, so that a prefix is not all faces."""
    sets = collections.defaultdict(list)
    for emoji in sorted(emojis, key=lambda emoji: _sha256(emoji.record["key"])):
        sets[emoji.shard].append(emoji)
    shards = []
    for name in sorted(sets):
        for number, start in enumerate(range(0, len(sets[name]), SHARD_SIZE)):
            part = sets[name][start : start + SHARD_SIZE]
            shards.append(write_shard(out / f"{name}-{number:05d}.tar", part))
    return shards


def write_shard(path: pathlib.Path, emojis: Sequence[Emoji]) -> dict:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for emoji in emojis:
            for extension, data in (("png", emoji.png), ("json", emoji.json)):
                member = tarfile.TarInfo(f"{emoji.record['key']}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    data = path.read_bytes()
    return {
        "file": path.name,
        "samples": len(emojis),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def count(entries: list[dict], dropped: list[str], emojis: list[Emoji]) -> dict[str, int]:
    splits = collections.Counter((emoji.record["split"], emoji.record["is_flag"]) for emoji in emojis)
    return {
        "emoji.json entries (no skin tones)": len(entries),
        "kept": len(emojis),
        "kept non-flags": splits["train", False] + splits["val", False],
        "split train": splits["train", False],
        "split val": splits["val", False],
        **{f"dropped: {reason}": dropped.count(reason) for reason in ("hair variant", "facing right")},
        "dropped: skin-tone component": dropped.count("skin-tone component"),
        "kept flags": splits["train", True] + splits["val", True],
        "split train flags": splits["train", True],
        "split val flags": splits["val", True],
    }


def _package(packages: pathlib.Path, name: str) -> pathlib.Path:
    """The folder of a package, with or without a version in its name."""
    found = [path for path in packages.iterdir() if re.fullmatch(rf"{name}([-@]\d.*)?", path.name) and path.is_dir()]
    if len(found) != 1:
        raise FileNotFoundError(f"{packages}: {len(found)} folders of the package {name}, one is needed")
    return found[0]


def _sha256(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest())


def main(argv: Sequence[str]) -> None:
    del argv
    index = build(pathlib.Path(_PACKAGES.value), pathlib.Path(_OUT.value))
    for shard in index["shards"]:
        print(f"{shard['sha256']}  {shard['file']}  {shard['samples']} samples")


if __name__ == "__main__":
    app.run(main)
