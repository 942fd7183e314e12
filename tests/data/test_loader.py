import functools
import itertools

import numpy as np
import pytest

from pea_jax.data import CachedSource, CacheWriter, CaptionRules, PixelExample, Sample, WebDatasetSource, divide
from pea_jax.data.loader import cached_example, make_loader, tokenize_captions
from pea_jax.errors import PeaError

HOSTS = 2


class Numbers:
    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> int:
        return number


def draw(number: int, rng: np.random.Generator) -> dict:
    return {"number": number, "drawn": rng.integers(1 << 30)}


def batches(loader, count: int) -> list[dict]:
    return list(itertools.islice(iter(loader), count))


def numbers(loader, count: int) -> np.ndarray:
    """[count, B]"""
    return np.stack([batch["number"] for batch in batches(loader, count)])


def host(index: int, **options):
    options = dict(batch_size=4, seed=3, num_threads=2, prefetch=3) | options
    return make_loader(Numbers(23), draw, process_index=index, process_count=HOSTS, **options)


def assert_equal(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_hosts_see_disjoint_samples_that_are_the_epoch():
    """20 of the 23 fill 5 batches of 4; another 3 are left out in another epoch."""
    first, second = numbers(host(0), 15).reshape(3, 10), numbers(host(1), 15).reshape(3, 10)
    for epoch in range(3):
        assert len({*first[epoch], *second[epoch]}) == 20
    assert len({tuple(order) for order in first}) == 3
    assert {*first.ravel(), *second.ravel()} == set(range(23))


def test_two_hosts_three_epochs_two_buckets():
    """24 samples in 6 batches: union the corpus, intersection empty, the same bucket at each step, another order."""
    rows = {(64, 64): range(16), (96, 64): range(16, 24)}
    load = functools.partial(make_loader, Numbers(24), draw, batch_size=4, seed=5, rows_by_bucket=rows)
    hosts = [numbers(load(process_index=index, process_count=HOSTS), 18) for index in range(HOSTS)]
    for first in range(0, 18, 6):
        seen = [set(mine[first : first + 6].ravel()) for mine in hosts]
        assert seen[0] | seen[1] == set(range(24)) and not seen[0] & seen[1]
    wide = [mine >= 16 for mine in hosts]
    for step in range(18):
        assert len({*wide[0][step], *wide[1][step]}) == 1
    assert all(len({tuple(mine[first : first + 6].ravel()) for first in range(0, 18, 6)}) == 3 for mine in hosts)


def test_hosts_together_see_what_one_alone_would():
    alone = batches(make_loader(Numbers(23), draw, batch_size=4, seed=3), 15)
    hosts = [batches(host(index), 15) for index in range(HOSTS)]
    for name in ("number", "drawn"):
        together = np.concatenate([[batch[name] for batch in mine] for mine in hosts], axis=1)
        np.testing.assert_array_equal(together, [batch[name] for batch in alone])


def test_the_seed_decides():
    assert_equal(batches(host(0), 12), batches(host(0, num_threads=0), 12))
    assert not np.array_equal(numbers(host(0), 12), numbers(host(0, seed=4), 12))


def test_a_sample_is_drawn_anew_each_epoch():
    loader = make_loader(Numbers(4), draw, batch_size=4, seed=0)
    drawn = [dict(zip(batch["number"].tolist(), batch["drawn"].tolist(), strict=True)) for batch in batches(loader, 8)]
    assert all(len({epoch[number] for epoch in drawn}) == 8 for number in range(4))


@pytest.mark.parametrize("step", [0, 1, 7, 13])
def test_resumes_at_any_step(step):
    whole = batches(host(1), 20)
    iterator = iter(host(1))
    for _ in range(step):
        next(iterator)
    state = iterator.get_state()
    next(iterator)  # what is prefetched or read after the state is taken does not matter
    resumed = iter(host(1))
    resumed.set_state(state)
    assert_equal(list(itertools.islice(resumed, 20 - step)), whole[step:])


def test_buckets_take_turns_and_all_hosts_agree():
    rows = {(64, 64): np.arange(0, 100, 2), (96, 64): np.arange(1, 100, 4)}
    load = functools.partial(make_loader, Numbers(100), draw, batch_size=4, seed=0, rows_by_bucket=rows)
    hosts = [numbers(load(process_index=index, process_count=HOSTS), 90) for index in range(HOSTS)]
    odd = [(mine % 2).astype(bool) for mine in hosts]
    for mine in odd:
        np.testing.assert_array_equal(mine.all(axis=1), mine.any(axis=1))
    np.testing.assert_array_equal(odd[0], odd[1])
    assert abs(odd[0].mean() - 1 / 3) < 0.02
    first_epoch = np.concatenate(hosts, axis=1)[~odd[0][:, 0]][:12]
    assert len(set(first_epoch.ravel())) == 48


def test_given_weights_decide_how_often_a_bucket_comes():
    """However many samples it has."""
    rows, weights = {(64, 64): range(80), (96, 64): range(80, 100)}, {(64, 64): 0.2, (96, 64): 0.6}
    found = numbers(make_loader(Numbers(100), draw, batch_size=4, seed=0, rows_by_bucket=rows, weights=weights), 200)
    assert abs((found[:, 0] >= 80).mean() - 0.75) < 0.02


def test_buckets_of_one_size_are_drawn_apart():
    rows = {(64, 64): range(0, 16, 2), (96, 64): range(1, 16, 2)}
    epoch = batches(make_loader(Numbers(16), draw, batch_size=8, seed=0, rows_by_bucket=rows), 2)
    assert {*epoch[0]["number"], *epoch[1]["number"]} == set(range(16))
    assert not np.array_equal(epoch[0]["number"] // 2, epoch[1]["number"] // 2)
    assert not set(epoch[0]["drawn"]) & set(epoch[1]["drawn"])


def test_a_bucket_smaller_than_a_batch_is_named():
    rows = {(64, 64): range(8), (96, 64): range(8, 11)}
    with pytest.raises(PeaError, match=r"bucket \(96, 64\): 3 samples are less than one batch of 4; lower"):
        make_loader(Numbers(11), draw, batch_size=4, seed=0, rows_by_bucket=rows)
    with pytest.raises(PeaError, match="the data: 23 samples are less than one batch of 24"):
        make_loader(Numbers(23), draw, batch_size=24, seed=0)


def test_batch_that_the_hosts_cannot_share():
    with pytest.raises(PeaError, match="batch_size 5: not a multiple of the 2 processes"):
        host(0, batch_size=5)


def tokenize(texts: list[str]) -> dict[str, np.ndarray]:
    return {"input_ids": np.array([[len(text), int(text.split()[1])] for text in texts], np.int32)}


def test_batches_of_pictures(shard):
    """A picture's red channel, its captions and its numbers tell of the same sample."""
    finish = functools.partial(tokenize_captions, student=tokenize, teacher=tokenize)
    loader = make_loader(
        WebDatasetSource(shard),
        PixelExample(CaptionRules("ru"), ((8, 8),)),
        batch_size=5,
        seed=0,
        finish=finish,
        num_threads=2,
    )
    batch = next(iter(loader))
    assert batch.keys() == {"pixels", "time_ids", "native", "student_tokens", "teacher_tokens", "row", "skipped"}
    assert batch["pixels"].shape == (5, 8, 8, 3) and batch["pixels"].dtype == np.float32
    red = np.rint((batch["pixels"][:, 0, 0, 0] + 1) * 127.5)
    np.testing.assert_array_equal(batch["student_tokens"]["input_ids"][:, 1], red)
    np.testing.assert_array_equal(batch["teacher_tokens"]["input_ids"][:, 1], red)
    np.testing.assert_array_equal(batch["pixels"][..., 1:], -1)
    np.testing.assert_array_equal(batch["time_ids"], [[8, 8, 0, 0, 8, 8]] * 5)
    assert batch["native"].tolist() == [0] * 5 and batch["native"].dtype == np.float32


def test_a_sample_without_a_picture_is_grey_in_the_squarest_bucket(rng):
    """The UNet is told the size of the bucket, as of a picture that fits; no size in the data is so small."""
    sample = Sample("texts.jsonl", "row 1", None, dict(caption_ru="щи", caption_en="soup"))
    example = PixelExample(CaptionRules("ru"), ((8, 24), (16, 12), (24, 8)), max_pixels=100)(sample, rng)
    np.testing.assert_allclose(example["pixels"], np.full((12, 16, 3), 128 / 127.5 - 1), atol=1e-6)
    np.testing.assert_array_equal(example["time_ids"], [12, 16, 0, 0, 12, 16])
    assert (example["caption"], example["caption_en"], example["native"]) == ("щи", "soup", 0)


def test_native_flag(write_shard, make_sample):
    samples = {key: make_sample(1, native=key == "b", caption_en="" if key == "b" else "apple") for key in "ab"}
    source = WebDatasetSource(write_shard("a.tar", samples))
    batch = next(iter(make_loader(source, PixelExample(CaptionRules("ru"), ((8, 8),)), batch_size=2, seed=0)))
    assert sorted(zip(batch["native"].tolist(), batch["caption_en"].tolist(), strict=True)) == [(0, "apple"), (1, "")]


def test_a_bad_sample_stops_the_loader_with_its_name(write_shard, make_sample):
    samples = {f"{number}": make_sample(number) for number in range(8)} | {
        "bad": make_sample(8, caption_ru="", caption_en="")
    }
    source = WebDatasetSource(write_shard("a.tar", samples))
    loader = make_loader(source, PixelExample(CaptionRules("ru"), ((8, 8),)), batch_size=2, seed=0, num_threads=2)
    with pytest.raises(PeaError, match=r"a\.tar: sample bad: no text in field caption_ru or caption_en"):
        batches(loader, 8)


def test_cached_and_decoded_samples_draw_the_same_captions(shard, tmp_path):
    """So a run from the cache sees what a run from the shards sees."""
    source, variants = WebDatasetSource(shard), 4
    example = PixelExample(CaptionRules("ru", variants=variants, seed=7), ((8, 8),))

    def record(number: int) -> dict[str, np.ndarray]:
        tenths = number + np.arange(variants, dtype=np.float32) / 10
        drawn = np.broadcast_to(tenths[:, None, None], (variants, 2, 3))
        return {
            "moments": np.full((4, 4, 2), number, np.float32),
            "states": drawn,
            "prompt_embeds": drawn[..., :1],
            "pooled_prompt_embeds": drawn[:, 0],
            "time_ids": np.zeros(6, np.float32),
            "native": np.float32(0),
        }

    writer = CacheWriter(tmp_path, {}, divide({(4, 4): range(len(source))}))
    for part in writer.missing():
        writer.write(part, map(record, part.rows))
    cached = batches(make_loader(CachedSource(tmp_path), cached_example, batch_size=5, seed=7), 9)
    decoded = batches(make_loader(source, example, batch_size=5, seed=7), 9)
    assert {name: array.shape for name, array in cached[0].items()} == {
        "moments": (5, 4, 4, 2),
        "states": (5, 2, 3),
        "prompt_embeds": (5, 2, 1),
        "pooled_prompt_embeds": (5, 3),
        "time_ids": (5, 6),
        "native": (5,),
        "row": (5,),
        "skipped": (5,),
    }
    variants_seen = set()
    for one, other in zip(cached, decoded, strict=True):
        numbers = np.rint((other["pixels"][:, 0, 0, 0] + 1) * 127.5)
        np.testing.assert_array_equal(one["moments"][:, 0, 0, 0], numbers)
        drawn = np.rint((one["states"][:, 0, 0] - numbers) * 10).astype(int)
        assert [caption.split(", ")[-1] == "плод" for caption in other["caption"]] == (drawn > 0).tolist()
        variants_seen |= set(drawn.tolist())
    assert variants_seen == set(range(variants))
