"""From a data source to batches: shuffled, divided between the hosts, resumable at any step."""

import contextlib
import ctypes
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np
from PIL import Image

from pea_jax.data.buckets import Size, add_time_ids, nearest_bucket, resize_and_crop
from pea_jax.data.captions import CaptionRules
from pea_jax.data.samples import Sample
from pea_jax.data.skipping import BadSamples, Skipping
from pea_jax.errors import PeaError

Example = dict[str, Any]
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


class RandomAccess(Protocol):
    """Anything with a length and numbered records."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


Tokenize = Callable[[list[str]], Any]


@dataclasses.dataclass(frozen=True)
class PixelExample:
    """A `Sample` to what one training step needs of it, with one of its captions drawn.

    Gives "pixels" float32 [H, W, 3] in [-1, 1], "time_ids" float32 [6] (see `add_time_ids`, with its orders), "native"
    float32 [] (1: native, 0: parallel pair), and the texts "caption" and "caption_en". Images of more than `max_pixels`
    are bad samples. A sample without a picture is grey, in the bucket nearest to a square.
    """

    captions: CaptionRules
    buckets: Sequence[Size]
    time_ids: str = "sdxl"
    max_pixels: int | None = None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Example:
        captions = self.captions(sample)
        variant = rng.integers(len(captions.student))
        image = sample.rgb(self.max_pixels)
        bucket = nearest_bucket(image.size, self.buckets)
        pixels, time_ids = cut_out(sample, image, bucket, rng, self.time_ids)
        return {
            "pixels": _scaled(pixels),
            "time_ids": time_ids,
            "native": np.float32(captions.native),
            "caption": captions.student[variant],
            "caption_en": captions.teacher[variant],
        }


def cut_out(
    sample: Sample, image: Image.Image, bucket: Size, rng: np.random.Generator, order: str
) -> tuple[np.ndarray, np.ndarray]:
    """A bucket's part of the decoded `image` of a sample.

    Returns:
      uint8 [H, W, 3], and the time ids, float32 [6] (`add_time_ids`, in that order). Where there is no picture they are
      those of one that fits: sizes of one pixel the UNet has never been told.
    """
    image = image if sample.has_picture else image.resize(bucket)
    pixels, top_left = resize_and_crop(image, bucket, rng)
    return pixels, add_time_ids(image.size, top_left, bucket, order)


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [-1, 1], in one piece of new memory: more would take as long as decoding the image."""
    result = np.divide(pixels, np.float32(127.5), dtype=np.float32)
    result -= 1
    return result


def cached_example(record: Mapping[str, np.ndarray], rng: np.random.Generator) -> Example:
    """A record of `CachedSource` with one of its V captions drawn; the same one that `PixelExample` draws."""
    variant = rng.integers(len(record["states"]))
    texts = ("states", "prompt_embeds", "pooled_prompt_embeds")  # the last only where the teacher has it
    drawn = {name: record[name][variant] for name in texts if name in record}
    return {**record, **drawn}


def tokenize_captions(batch: Example, student: Tokenize, teacher: Tokenize) -> Example:
    """Replaces the texts "caption" and "caption_en" of a batch by "student_tokens" and "teacher_tokens"."""
    batch = dict(batch)
    batch["student_tokens"] = student(batch.pop("caption").tolist())
    batch["teacher_tokens"] = teacher(batch.pop("caption_en").tolist())
    return batch


def make_loader(
    source: RandomAccess,
    example: Callable[[Any, np.random.Generator], Example],
    *,
    batch_size: int,
    seed: int,
    rows_by_bucket: Mapping[Any, Sequence[int] | np.ndarray] | None = None,
    weights: Mapping[Any, float] | None = None,
    finish: Callable[[Example], Example] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 8,
    prefetch: int = 16,
    max_bad_rate: float = 0.0,
) -> grain.IterDataset:
    """This host's share of an endless stream of batches, the same for the same seed.

    Every epoch has another order. The order and what `example` draws depend on no number of hosts: together the hosts
    see at step t the samples that one host alone would see. `iter(loader)` has `get_state` and `set_state`. Beside what
    `example` gives a batch has "row" and "skipped", see `Skipping`; `Batches` takes them out.

    Args:
      source: what `example` takes, by number.
      example: one record and a random generator to a dict of arrays.
      batch_size: over all hosts.
      rows_by_bucket: rows of the source whose examples have one shape; every batch is of one bucket, the same on all
        hosts, and buckets come as often as their rows suggest. Without it all rows are of one shape.
      weights: how often each bucket comes, if not as its rows suggest; their sum is any.
      finish: applied to each batch, e.g. to tokenize it.
      prefetch: batches held ready.
      max_bad_rate: share of bad samples at which reading stops, see `BadSamples`.

    Raises:
      PeaError: the hosts cannot share `batch_size` evenly, or a bucket cannot fill one batch.
    """
    _keep_freed_memory()
    if batch_size % process_count:
        raise PeaError(f"batch_size {batch_size}: not a multiple of the {process_count} processes")
    groups = {"the data": range(len(source))} if rows_by_bucket is None else dict(sorted(rows_by_bucket.items()))
    check_buckets(groups, batch_size)
    share, bad = (process_index, process_count), BadSamples(max_bad_rate)
    streams = [
        _stream(Skipping(source, rows, example, bad), batch_size, seed + number, share)
        for number, (bucket, rows) in enumerate(groups.items())
    ]
    shares = [weights[bucket] if weights else len(rows) // batch_size for bucket, rows in groups.items()]
    batches = grain.MapDataset.mix(streams, weights=shares) if len(streams) > 1 else streams[0]
    batches = batches.map(finish) if finish else batches
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch))


def check_buckets(rows_by_bucket: Mapping[Any, Sequence[int] | np.ndarray], batch_size: int) -> None:
    """Refuse buckets that cannot fill one batch.

    Raises:
      PeaError: naming the bucket and what to do.
    """
    for bucket, rows in rows_by_bucket.items():
        if len(rows) < batch_size:
            raise PeaError(
                f"bucket {bucket}: {len(rows)} samples are less than one batch of {batch_size}; lower batch_size, or "
                "take the bucket out of config.data.buckets or give it a weight of 0 in config.data.bucket_weights"
            )


def _stream(example: Skipping, batch_size: int, seed: int, share: tuple[int, int]) -> grain.MapDataset:
    """A host's part of each batch: as many rows in a row as the others have, so that together they make the batch in
    the order in which one host alone would."""
    host, hosts = share
    places = range(len(example.rows))
    used = len(places) // batch_size * batch_size  # as many on every host, else their epochs drift apart
    dataset = grain.MapDataset.source(places).seed(seed).shuffle()
    # Drawn before the hosts divide the stream, so that what is drawn for a sample is the same on any number of hosts.
    parts = dataset.random_map(example)[:used].batch(batch_size // hosts, drop_remainder=True)
    return parts[host::hosts].repeat()


def _keep_freed_memory() -> None:
    """Pictures' memory is used again, not given back to the system, which takes the threads a third of their time."""
    with contextlib.suppress(AttributeError, OSError):  # C libraries other than glibc have no such setting
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    Image.core.set_blocks_max(16)  # of 16 megabytes, by Pillow itself
