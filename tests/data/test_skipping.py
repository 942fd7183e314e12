"""Bad samples: what takes their place, what is said of them, and when there are too many."""

import dataclasses
import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pea_jax.data import CaptionRules, PixelExample, WebDatasetSource
from pea_jax.data.batches import Batches
from pea_jax.data.loader import make_loader
from pea_jax.data.skipping import ATTEMPTS, LEAST, LISTED, BadSamples, first_good
from pea_jax.errors import BadSample, PeaError
from tests.data.conftest import png


@dataclasses.dataclass
class Numbers:
    """The numbers 0 to 99, of which some are bad."""

    bad: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return 100

    def __getitem__(self, number: int) -> int:
        if number in self.bad:
            raise BadSample(f"shard: sample {number}: broken")
        return number


def draw(number: int, rng: np.random.Generator) -> dict:
    return {"number": number, "drawn": rng.integers(1 << 30)}


def load(bad: set[int] | range, count: int, **options) -> dict[str, np.ndarray]:
    """[count, B] of each field of the batches."""
    options = dict(batch_size=10, seed=3, num_threads=2, prefetch=3, max_bad_rate=0.5) | options
    batches = list(itertools.islice(make_loader(Numbers(frozenset(bad)), draw, **options), count))
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def test_only_the_place_of_a_bad_sample_changes():
    bad, whole = load({5, 17, 60}, 20), load(set(), 20)
    places = np.isin(whole["number"], [5, 17, 60])
    assert places.sum() == 6 and not whole["skipped"].any()
    np.testing.assert_array_equal(bad["skipped"], places)
    assert not np.isin(bad["number"], [5, 17, 60]).any()
    np.testing.assert_array_equal(bad["row"], bad["number"])
    for name in whole:
        np.testing.assert_array_equal(bad[name][~places], whole[name][~places])


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_replacements_depend_on_no_hosts_no_threads_and_no_resumption(threads):
    whole = load(range(0, 100, 3), 20)
    hosts = [load(range(0, 100, 3), 20, process_index=n, process_count=2, num_threads=threads) for n in range(2)]
    for name in whole:
        together = np.concatenate([host[name] for host in hosts], axis=1)
        np.testing.assert_array_equal(together, whole[name])
    resumed = iter(make_loader(Numbers(frozenset(range(0, 100, 3))), draw, batch_size=10, seed=3, max_bad_rate=0.5))
    resumed.set_state({"next_index": 13})
    np.testing.assert_array_equal(next(resumed)["drawn"], whole["drawn"][13])


def test_a_replacement_is_of_the_same_bucket():
    rows = {(64, 64): np.arange(0, 100, 2), (96, 64): np.arange(1, 100, 2)}
    found = load(range(30), 40, rows_by_bucket=rows)
    odd = found["number"] % 2
    np.testing.assert_array_equal(odd.min(1), odd.max(1))
    assert found["skipped"].any() and found["number"].min() >= 30


def test_too_many_bad_samples_stop_the_run():
    with pytest.raises(PeaError, match=r"samples cannot be used, config.data.max_bad_rate=0.01 .* sample \d+: broken"):
        load(range(0, 100, 10), 100, max_bad_rate=0.01)
    with pytest.raises(PeaError, match=f"none of {ATTEMPTS} samples"):
        load(range(100), 1, max_bad_rate=1.0)
    with pytest.raises(PeaError, match="1 of the first 1 samples cannot be used"):
        load(range(100), 1, max_bad_rate=0.0, num_threads=0)


def test_few_different_ones_do_not_however_often_they_come():
    found = load(range(LEAST - 1), 100, max_bad_rate=0.01)
    assert found["skipped"].sum() >= 10 * (LEAST - 1)


def test_a_rate_below_the_limit_is_allowed_and_one_above_it_is_not():
    """Drawn many times: no run of ill luck at the start may stop a run that is within the limit."""
    for rate, stops in ((0.006, False), (0.03, True)):
        rng = np.random.default_rng(0)
        stopped = [_stops(rng.random(3000) < rate) for _ in range(100)]
        assert np.mean(stopped) > 0.99 if stops else np.mean(stopped) < 0.05


def _stops(bad: np.ndarray) -> bool:
    counter = BadSamples(0.01)
    try:
        for row, is_bad in enumerate(bad):
            counter.add(row, BadSample("x")) if is_bad else counter.add_good()
    except PeaError:
        return True
    return False


def test_each_is_named_once_and_not_all_of_them(capsys):
    counter = BadSamples(1.0)
    for number in itertools.chain([0, 0], range(1, 500)):
        counter.add(number, BadSample(f"a.tar: sample {number}: broken"))
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("skipped: a.tar: sample") == LISTED and said.count("sample 0:") == 1
    assert counter.count == 501 and "further bad samples are counted and not named" in said


def test_the_first_good_ones():
    assert first_good(Numbers(frozenset({0, 2})), str, 3) == ["1", "3", "4"]
    assert first_good(Numbers(), str, 1000) == list(map(str, range(100)))
    assert first_good(Numbers(frozenset(range(99))), str, 3) == ["99"]
    with pytest.raises(BadSample, match="sample 0: broken"):
        first_good(Numbers(frozenset(range(100))), str, 3)


def test_the_search_for_a_good_one_ends(monkeypatch):
    monkeypatch.setattr("pea_jax.data.skipping.SEARCHED", 20)
    assert first_good(Numbers(frozenset(range(1, 19))), str, 3) == ["0", "19", "20"]
    assert first_good(Numbers(frozenset(range(1, 21))), str, 3) == ["0"]
    with pytest.raises(BadSample, match="sample 0: broken"):
        first_good(Numbers(frozenset(range(20))), str, 3)


# True samples.


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises what is not in it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + b"\0" * 99


def cut_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()[:-400]


SPOILT = {
    "corrupt": dict(png=b"no image at all"),
    "truncated": dict(png=cut_jpeg()),
    "empty": dict(png=b""),
    "large": dict(png=png(size=(101, 100))),
    "bomb": dict(png=bomb(1 << 30, 1 << 30)),
    "words": dict(json=b"{no JSON"),
    "list": dict(json=b"[1, 2]"),
    "bytes": dict(json=b"\xff\xfe\x00"),
    "deep": dict(json=b"[" * 100_000),
    "silent": dict(json=b'{"caption_en": "apple", "caption_ru": ["x"], "caption_en": " "}'),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_bad_is_skipped_counted_and_named(write_shard, make_sample, capsys, name, recwarn):
    samples = {f"{number}": make_sample(number) for number in range(19)} | {name: make_sample(99) | SPOILT[name]}
    source = WebDatasetSource(write_shard("a.tar", samples))
    example = PixelExample(CaptionRules("ru"), ((8, 8),), max_pixels=100 * 100)
    batches = Batches(make_loader(source, example, batch_size=10, seed=0, num_threads=2, max_bad_rate=0.01))
    red = [np.rint((next(batches)["pixels"][:, 0, 0, 0] + 1) * 127.5) for _ in range(6)]
    assert set(np.concatenate(red)) == set(range(19)) and batches.skipped >= 3
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("skipped:") == 1 and "a.tar" in said and f"sample {name}:" in said
    assert not recwarn.list
