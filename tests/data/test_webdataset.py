import os
import pathlib
import pickle
import tarfile

import numpy as np
import pytest

from pea_jax.data import WebDatasetSource
from pea_jax.data.webdataset import check_quoted, expand_braces, find_shards
from pea_jax.errors import BadSample, PeaError

EMOJI = pathlib.Path(__file__).resolve().parents[2] / "assets" / "emoji"
LANGUAGES = ("en", "ru", "zh", "ja", "ko", "it", "tr", "vi", "de", "uk")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{cat,dog}.tar", ["cat.tar", "dog.tar"]),
        ("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
        ("a-{000000..000000}.tar", ["a-000000.tar"]),
    ],
)
def test_expand_braces(pattern, names):
    assert expand_braces(pattern) == names


def test_braces_that_count_downwards():
    """No shard at all would be read of them, without a word where there are others beside."""
    with pytest.raises(PeaError, match=r"a-\{11\.\.08\}\.tar: counts downwards; write \{08\.\.11\}"):
        expand_braces("a-{11..08}.tar")


def test_braces_without_quotes():
    """bash makes of `--train=a-{0..1}.tar` two flags; the same one twice is no such case."""
    check_quoted(["--train=a-{0..1}.tar", "--train=a-{0..1}.tar", "--training=b", "--validation=c"], ("--train",))
    with pytest.raises(PeaError, match="--train has 2 values, of which the last alone would be read; put a pattern"):
        check_quoted(["--train=a-0.tar", "--train=a-1.tar"], ("--validation", "--train"))


def test_missing_shard_names_the_pattern_and_what_exists(write_shard, shard, tmp_path):
    write_shard("a-001.tar", {})
    pattern = str(tmp_path / "a-{000..002}.tar")
    with pytest.raises(PeaError) as error:
        find_shards(pattern)
    assert str(error.value) == (
        f"{tmp_path}/a-002.tar: no such shard (of {pattern!r}); in its folder: a-000.tar, a-001.tar"
    )
    with pytest.raises(PeaError, match="no such shard .*; in its folder: none"):
        find_shards("/nowhere/a.tar")
    with pytest.raises(PeaError, match="no shards given"):
        WebDatasetSource("")


def test_samples_of_several_sets(write_shard, shard, make_sample, tmp_path):
    write_shard("b-0.tar", {"x": make_sample(200)})
    write_shard("b-1.tar", {})
    write_shard("b-2.tar", {"ключ": make_sample(201), "z": make_sample(202)})
    source = WebDatasetSource([str(tmp_path / "a-{000..000}.tar"), str(tmp_path / "b-{0..2}.tar")])
    assert len(source) == 26
    keys = [f"{number:03d}" for number in range(23)] + ["x", "ключ", "z"]
    assert [source[number].key for number in range(26)] == keys
    for number, red in [(0, 0), (22, 22), (23, 200), (24, 201), (25, 202), (-1, 202)]:
        sample = source[number]
        assert (sample.key, sample.caption("ru")) == (keys[number], f"яблоко {red}")
        assert sample.pixels()[0, 0].tolist() == [red, 0, 0]
    assert source[24].shard == str(tmp_path / "b-2.tar")
    with pytest.raises(IndexError):
        source[26]


def test_patterns_may_stand_in_one_string(write_shard, shard, make_sample, tmp_path):
    write_shard("b.tar", {"x": make_sample(1)})
    assert len(WebDatasetSource(f"{shard} {tmp_path}/b.tar")) == 24


def test_workers_may_have_a_copy(shard):
    copy = pickle.loads(pickle.dumps(WebDatasetSource(shard)))
    assert copy[5].caption("ru") == "яблоко 5"


@pytest.mark.parametrize(("member", "what"), [("png", r"\.png or \.jpg or \.jpeg or \.webp"), ("json", r"\.json")])
def test_sample_without_image_or_record(write_shard, make_sample, member, what):
    samples = {key: make_sample(1) for key in ("a", "b", "c")}
    del samples["b"][member]
    with pytest.raises(PeaError, match=rf"a\.tar: sample b has no {what} \(1 such samples\)"):
        WebDatasetSource(write_shard("a.tar", samples))


def test_samples_of_one_key_side_by_side(write_shard, make_sample, tmp_path):
    """They were taken for one, and all but the first left out."""
    write_shard("a.tar", {"a": make_sample(1), "./a": make_sample(2), "b": make_sample(3)})
    assert len(WebDatasetSource(str(tmp_path / "a.tar"))) == 3
    with tarfile.open(tmp_path / "a.tar") as old, tarfile.open(tmp_path / "b.tar", "w") as new:
        for member in old.getmembers():
            content = old.extractfile(member)
            member.name = member.name.removeprefix("./")
            new.addfile(member, content)
    with pytest.raises(PeaError, match=r"b\.tar: 2 samples in a row have the key a; give each its own"):
        WebDatasetSource(str(tmp_path / "b.tar"))


def test_samples_whose_files_are_not_side_by_side(write_shard, make_sample):
    """As `tar` writes them without `--sort=name`, or with names that have dots."""
    one = make_sample(1)
    apart = {"a": {"png": one["png"]}, "b": one, "./a": {"json": one["json"]}}
    for name, samples in {"a.tar": apart, "b.tar": {"v1.0": one, "v1.1": one}}.items():
        with pytest.raises(PeaError, match=r"has no .*; the files .* one after the other .* up to the first dot"):
            WebDatasetSource(write_shard(name, samples))


@pytest.mark.parametrize("record", [b"", b"{", b"\xff\xfe", b'"text"'])
def test_record_that_is_no_json_object(write_shard, make_sample, record):
    source = WebDatasetSource(write_shard("a.tar", {"a": make_sample(1), "b": make_sample(2) | {"json": record}}))
    assert source[0].caption("ru") == "яблоко 1"
    with pytest.raises(BadSample, match=r"a\.tar: sample b: the record is not "):
        source[1]


def test_shard_cut_after_it_was_indexed(shard):
    source = WebDatasetSource(shard)
    os.truncate(shard, 3000)
    with pytest.raises(BadSample, match=r"a-000\.tar: sample 001: the shard was cut at byte 3000 since the run began"):
        [source[number] for number in range(23)]
    os.remove(shard)
    with pytest.raises(PeaError, match=r"a-000\.tar: cannot be read \(No such file") as error:
        source[0]
    assert not isinstance(error.value, BadSample)


def test_record_far_from_its_image(write_shard, make_sample):
    """Which of the two comes first, and what lies between, does not matter."""
    one = make_sample(1)
    members = {"json": one["json"], "txt": b"1" * 100_000, "png": one["png"]}
    source = WebDatasetSource(write_shard("a.tar", {"a": members, "b": dict(reversed(members.items()))}))
    for sample in (source[0], source[1]):
        assert (sample.image, sample.caption("ru")) == (one["png"], "яблоко 1")


def test_parts_change_with_their_shard(write_shard, shard, make_sample):
    other = write_shard("b.tar", {"x": make_sample(1)})
    before = WebDatasetSource([shard, other]).parts
    assert [(part.path, part.count) for part in before] == [(shard, 23), (other, 1)]
    write_shard("b.tar", {"x": make_sample(2), "y": make_sample(3)})
    after = WebDatasetSource([shard, other]).parts
    assert after[0] == before[0] and after[1].stamp != before[1].stamp


def test_memory_a_sample(write_shard):
    """Nothing is held that grows with the number of samples."""
    sizes = []
    for count in (300, 3000):
        samples = {f"{number:09d}": {"png": b"", "json": b""} for number in range(count)}
        sizes.append(len(pickle.dumps(WebDatasetSource(write_shard("a.tar", samples)))))
    assert sizes[1] <= sizes[0] + 64


@pytest.fixture
def emoji(tmp_path):
    """A folder with links to the shards, so that their indices are not left among the assets."""
    for shard in EMOJI.glob("*.tar"):
        (tmp_path / shard.name).symlink_to(shard)
    return tmp_path


def test_embedded_corpus(emoji):
    sets = {"emoji-train-{00000..00001}": 1450, "emoji-val-00000": 156, "flags-train-00000": 252, "flags-val-00000": 18}
    keys, families = set(), {"train": set(), "val": set()}
    for name, count in sets.items():
        source = WebDatasetSource(str(emoji / f"{name}.tar"))
        assert len(source) == count
        for number in range(count):
            sample = source[number]
            assert all(sample.caption(language) and sample.keywords(language) for language in LANGUAGES)
            keys.add(sample.key)
            families[sample.record["split"]].add(sample.family)
    assert len(keys) == 1876
    assert len(families["train"] | families["val"]) == 1700 and not families["train"] & families["val"]


def test_embedded_pictures(emoji):
    source = WebDatasetSource(str(emoji / "emoji-val-00000.tar"))
    pixels = np.stack([source[number].pixels() for number in range(0, 156, 10)])
    assert pixels.shape == (16, 64, 64, 3)
    assert (pixels[:, 0, 0] == 255).all(axis=-1).mean() > 0.8  # on white
