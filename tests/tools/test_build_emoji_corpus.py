import hashlib
import io
import json
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from tools.build_emoji_corpus import LANGUAGES, build, concept_family

EMOJI = pathlib.Path(__file__).resolve().parents[2] / "assets" / "emoji"

# code points, group, subgroup, the colour of the picture
ENTRIES = [
    ("1F34E", "Food & Drink", "food-fruit", (255, 0, 0, 255)),
    ("1F468-200D-2764-FE0F-200D-1F468", "People & Body", "family", (0, 0, 255, 255)),
    ("1F1E6-1F1F9", "Flags", "country-flag", (255, 0, 0, 0)),
    ("2665-FE0F", "Symbols", "game", (0, 0, 0, 51)),
    ("1F3FB", "Component", "skin-tone", (0, 0, 0, 255)),
    ("1F468-200D-1F9B0", "People & Body", "person", (0, 0, 0, 255)),
    ("1F6B6-200D-27A1-FE0F", "People & Body", "person-activity", (0, 0, 0, 255)),
    ("27A1-FE0F", "Symbols", "arrow", (0, 0, 0, 255)),
]
KEPT = ["1f34e", "1f468-200d-2764-fe0f-200d-1f468", "1f1e6-1f1f9", "2665-fe0f", "27a1-fe0f"]


def characters(codes: str) -> str:
    return "".join(chr(int(code, 16)) for code in codes.split("-"))


@pytest.fixture
def packages(tmp_path):
    """Three packages, unpacked, with eight made-up emoji; the heart has a derived annotation and a written one."""
    root = tmp_path / "packages"
    images = root / "emoji-datasource-google-16.0.0" / "img" / "google" / "64"
    images.mkdir(parents=True)
    entries = []
    for codes, group, subgroup, color in ENTRIES:
        entry = {"unified": codes, "category": group, "subcategory": subgroup, "added_in": "0.6"}
        entries.append(entry | {"image": f"{codes.lower()}.png"})
        Image.new("RGBA", (64, 64), color).save(images / entries[-1]["image"])
    (images.parents[2] / "emoji.json").write_text(json.dumps(entries))
    names = {characters(codes).replace("\ufe0f", ""): codes for codes, *_ in ENTRIES}
    for language in LANGUAGES:
        derived = {text: annotation("derived", codes, language) for text, codes in names.items() if len(text) > 1}
        written = {text: annotation("written", codes, language) for text, codes in names.items() if len(text) == 1}
        derived["♥"] = annotation("derived", "2665-FE0F", language)
        for package, key, texts in (
            ("cldr-annotations-derived-full-48.2.0", "annotationsDerived", derived),
            ("cldr-annotations-full-48.2.0", "annotations", written),
        ):
            folder = root / package / key / language
            folder.mkdir(parents=True)
            (folder / "annotations.json").write_text(json.dumps({key: {"annotations": texts}}))
    return root


def annotation(kind: str, codes: str, language: str) -> dict:
    return {"tts": [f"{kind} {codes} {language}"], "default": [language, codes]}


def read(folder: pathlib.Path) -> dict[str, bytes]:
    files = {}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            files |= {member.name: tar.extractfile(member).read() for member in tar}
    return files


def test_miniature(packages, tmp_path):
    index = build(packages, tmp_path / "corpus")
    files = read(tmp_path / "corpus")
    assert sorted(files) == sorted(f"{key}.{extension}" for key in KEPT for extension in ("png", "json"))
    stats = index["stats"]
    assert (stats["kept"], stats["kept non-flags"], stats["kept flags"]) == (5, 4, 1)
    assert [stats[f"dropped: {why}"] for why in ("hair variant", "facing right", "skin-tone component")] == [1, 1, 1]
    couple = json.loads(files["1f468-200d-2764-fe0f-200d-1f468.json"])
    assert couple["family"] == "P-200D-2764-200D-P"
    assert couple["emoji"] == "👨‍❤️‍👨"
    assert couple["caption_ru"] == "derived 1F468-200D-2764-FE0F-200D-1F468 ru"
    assert couple["keywords_uk"] == ["uk", "1F468-200D-2764-FE0F-200D-1F468"]
    assert json.loads(files["2665-fe0f.json"])["caption_en"] == "written 2665-FE0F en"
    assert json.loads(files["1f1e6-1f1f9.json"])["is_flag"] is True


def test_pictures_lie_on_white(packages, tmp_path):
    build(packages, tmp_path / "corpus")
    files = read(tmp_path / "corpus")
    for key, color in [("1f34e", (255, 0, 0)), ("1f1e6-1f1f9", (255, 255, 255)), ("2665-fe0f", (204, 204, 204))]:
        picture = Image.open(io.BytesIO(files[f"{key}.png"]))
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), np.broadcast_to(np.uint8(color), (64, 64, 3)))


def test_two_builds_are_the_same(packages, tmp_path):
    for folder in "ab":
        build(packages, tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    check_hashes(tmp_path / "a")


def test_missing_package(packages, tmp_path):
    (packages / "cldr-annotations-full-48.2.0").rename(packages / "other")
    with pytest.raises(FileNotFoundError, match="0 folders of the package cldr-annotations-full, one is needed"):
        build(packages, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("keys", "family"),
    [
        (["1f46e", "1f46e-200d-2640-fe0f", "1f46e-200d-2642-fe0f"], "1F46E"),
        (["1f468-200d-1f33e", "1f469-200d-1f33e", "1f9d1-200d-1f33e"], "P-200D-1F33E"),
        (["1f466", "1f467", "1f9d2"], "=1F466"),
        (["1f34e"], "1F34E"),
    ],
)
def test_concept_family(keys, family):
    assert {concept_family(key) for key in keys} == {family}


def test_shipped_records_have_the_families_of_the_rule():
    files = read(EMOJI)
    records = [json.loads(data) for name, data in files.items() if name.endswith(".json")]
    assert len(records) == 1876
    assert all(record["family"] == concept_family(record["key"]) for record in records)


def test_shipped_shards_are_those_of_the_index():
    index = check_hashes(EMOJI)
    assert [shard["samples"] for shard in index["shards"]] == [1000, 450, 156, 252, 18]


def check_hashes(folder: pathlib.Path) -> dict:
    index = json.loads((folder / "index.json").read_text())
    assert {shard["file"] for shard in index["shards"]} == {path.name for path in folder.glob("*.tar")}
    for shard in index["shards"]:
        data = (folder / shard["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == shard["sha256"], shard["file"]
        assert len(data) == shard["bytes"]
    return index
