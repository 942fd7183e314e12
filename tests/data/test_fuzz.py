"""Two thousand mutated samples and tars through index, source and loader: no hang, no crash, and counts that add up."""

import io
import itertools
import json
import tarfile
import time

import numpy as np
from PIL import Image

from pea_jax.data import CaptionRules, PixelExample, WebDatasetSource
from pea_jax.data.loader import make_loader
from pea_jax.errors import BadSample, PeaError

SAMPLES, TARS, EACH = 2800, 600, 3  # every second sample is mutated
EXAMPLE = PixelExample(CaptionRules("ru"), ((8, 8),), max_pixels=1 << 16)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, set to an extreme, cut off, taken out, doubled or put in."""
    array = np.frombuffer(data, np.uint8).copy()
    at, length = int(rng.integers(len(array))), int(rng.integers(1, 64))
    match int(rng.integers(6)):
        case 0:
            places = rng.integers(len(array), size=int(rng.integers(1, 9)))
            array[places] = rng.integers(256, size=len(places))
        case 1:
            array[at : at + length] = rng.choice([0, 255])
        case 2:
            array = array[:at]
        case 3:
            array = np.delete(array, slice(at, at + length))
        case 4:
            array = np.concatenate([array[: at + length], array[at:]])
        case 5:
            array = np.insert(array, at, rng.integers(256, size=length))
    return array.tobytes()


def picture(rng: np.random.Generator) -> tuple[str, bytes]:
    buffer, kind = io.BytesIO(), str(rng.choice(["png", "jpeg", "webp"]))
    Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).save(buffer, kind)
    return kind, buffer.getvalue()


def tar(samples: list[dict[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for number, members in enumerate(samples):
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{number:04d}.{extension}")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def sample(number: int, rng: np.random.Generator) -> dict[str, bytes]:
    kind, image = picture(rng)
    record = dict(caption_en=f"apple {number}", caption_ru=f"яблоко {number}", keywords_ru=["плод"], native=False)
    return {kind: image, "json": json.dumps(record, ensure_ascii=number % 2 == 0).encode()}


def usable(source: WebDatasetSource) -> np.ndarray:
    """Which samples can be trained on; whatever is raised but `BadSample` fails the test."""
    found = np.zeros(len(source), bool)
    for number in range(len(source)):
        try:
            EXAMPLE(source[number], np.random.default_rng(0))
            found[number] = True
        except BadSample as error:
            assert "sample" in str(error) and ".tar" in str(error)
    return found


def test_mutated_images_and_records(tmp_path):
    rng = np.random.default_rng(0)
    samples = [sample(number, rng) for number in range(SAMPLES)]
    for members in samples[::2]:
        spoilt = str(rng.choice(list(members)))
        members[spoilt] = mutated(members[spoilt], rng)
    (tmp_path / "a.tar").write_bytes(tar(samples))
    source = WebDatasetSource(str(tmp_path / "a.tar"))
    good = usable(source)
    assert len(good) == SAMPLES and 0.5 < good.mean() < 0.9 and good[1::2].all()
    loader = make_loader(source, EXAMPLE, batch_size=20, seed=0, num_threads=4, max_bad_rate=1.0)
    epoch = list(itertools.islice(loader, SAMPLES // 20))
    rows, skipped = (np.concatenate([batch[name] for batch in epoch]) for name in ("row", "skipped"))
    assert good[rows].all()
    assert sorted(rows[skipped == 0]) == np.flatnonzero(good).tolist()  # good ones, each once
    assert (skipped > 0).sum() == (~good).sum()  # the places of the bad ones


def test_mutated_tars(tmp_path):
    rng = np.random.default_rng(1)
    refused = skipped = good = lost = 0
    whole = tar([sample(number, rng) for number in range(EACH)])
    for number in range(TARS):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(mutated(whole, rng))
        begin = time.monotonic()
        try:
            found = usable(WebDatasetSource(str(path)))
        except PeaError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += EACH
        else:
            good, skipped, lost = good + found.sum(), skipped + (~found).sum(), lost + EACH - len(found)
        assert time.monotonic() - begin < 5
    assert good + skipped + refused + lost == TARS * EACH
    assert min(good, skipped, refused) >= 10
    assert abs(lost) <= TARS // 20  # a header's name that is changed ends or begins a sample


def test_nothing_is_unpacked_whatever_members_are_called(tmp_path, monkeypatch):
    """`../../x`, absolute names, links and devices: read where they lie, or not at all."""
    inside, outside = tmp_path / "in" / "side", tmp_path / "target"
    inside.mkdir(parents=True)
    outside.write_text("untouched")
    members = sample(0, np.random.default_rng(0))
    with tarfile.open(inside / "a.tar", "w") as file:
        for name in ("../../escape", str(tmp_path / "absolute"), "~/home", "plain"):
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{name}.{extension}")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
        for kind, name in (
            (tarfile.SYMTYPE, "link.png"),
            (tarfile.LNKTYPE, "hard.png"),
            (tarfile.CHRTYPE, "device.png"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(outside)
            file.addfile(member)
        member = tarfile.TarInfo("../folder")
        member.type = tarfile.DIRTYPE
        file.addfile(member)
    monkeypatch.chdir(inside)
    before = set(tmp_path.rglob("*"))
    source = WebDatasetSource("a.tar", str(tmp_path / "indices"))
    assert len(source) == 4 and usable(source).all()
    made = {path for path in tmp_path.rglob("*") if path.suffix != ".pea_index"} - before
    assert made <= {tmp_path / "indices"} and outside.read_text() == "untouched"


def test_a_shard_that_vanishes_stops_the_loader_with_its_name(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar([sample(number, np.random.default_rng(0)) for number in range(8)]))
    iterator = iter(make_loader(WebDatasetSource(str(path)), EXAMPLE, batch_size=2, seed=0, num_threads=1, prefetch=1))
    next(iterator)
    path.unlink()
    try:
        list(itertools.islice(iterator, 8))
    except PeaError as error:
        assert "a.tar" in str(error) and not isinstance(error, BadSample)
    else:
        raise AssertionError("read from a shard that is gone")
