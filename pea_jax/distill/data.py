"""From a config to the endless, resumable iterator of a run's batches."""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from pea_jax.data import (
    CachedSource,
    PixelExample,
    Sample,
    WebDatasetSource,
    cached_example,
    make_loader,
    parallel_captions,
    tokenize_captions,
    write_cache,
)
from pea_jax.data.buckets import group_by_bucket, resize_and_crop
from pea_jax.distill import cache
from pea_jax.distill.models import FrozenModels
from pea_jax.errors import PeaError
from pea_jax.report import console, track


def training_iterator(config: ConfigDict, models: FrozenModels, workdir: pathlib.Path) -> Iterator[dict[str, Any]]:
    """This process's batches, of numpy arrays; has `get_state` and `set_state`.

    With `config.data.cached` moments and text states come from the cache, which is made first if it is not there.
    """
    settings = dict(
        batch_size=config.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.data.num_threads,
    )
    if config.data.cached:
        cached = cached_source(config, models, pathlib.Path(config.data.cache_dir or workdir / "cache"))
        return iter(make_loader(cached, cached_example, **settings))
    source, buckets = WebDatasetSource(config.data.train), _buckets(config)
    variants = config.data.caption_variants, config.data.english_variants
    example = PixelExample(config.language, buckets, *variants, config.seed)
    tokenize = functools.partial(tokenize_captions, student=models.student.tokenize, teacher=models.teacher.tokenize)
    rows = None
    if len(buckets) > 1:
        rows = group_by_bucket([source[n].open().size for n in range(len(source))], buckets)
    return iter(make_loader(source, example, rows_by_bucket=rows, finish=tokenize, **settings))


def initial_states(config: ConfigDict, models: FrozenModels) -> jax.Array | None:
    """Text states `[N, L, D]` that the adapter starts from: the captions of the first training samples."""
    if not config.linear_start:
        return None
    source, captions = WebDatasetSource(config.data.train), _captions(config)
    texts = [captions(source[n])[0] for n in range(min(config.linear_start, len(source)))]
    states, _ = models.student.encode(list(itertools.chain.from_iterable(texts)))
    return states


def cached_source(config: ConfigDict, models: FrozenModels, folder: pathlib.Path) -> CachedSource:
    """The cache of a config's training set.

    Raises:
      PeaError: the cache in `folder` was made with other models, data or settings.
    """
    manifest = _manifest(config, models)
    if not (folder / "manifest.json").exists():
        source = WebDatasetSource(config.data.train)
        console.print(f"{folder}: computing latents and text states of {len(source)} samples, once")
        _make_cache(config, models, source, folder, manifest)
    return CachedSource(str(folder), manifest)


def _make_cache(
    config: ConfigDict, models: FrozenModels, source: WebDatasetSource, folder: pathlib.Path, manifest: dict[str, Any]
) -> None:
    if len(buckets := _buckets(config)) > 1:
        raise PeaError("config.data.cached: a cache holds pictures of one bucket; give one or set it to False")
    bucket, rng = buckets[0], np.random.default_rng(config.seed)

    def read(number: int):
        sample = source[number]
        pixels, time_ids = resize_and_crop(sample.rgb(), bucket, rng)
        return sample, pixels.astype(np.float32) / 127.5 - 1, time_ids

    samples = map(read, track(range(len(source)), "latents and text states"))
    write_cache(str(folder), cache.records(models, samples, _captions(config)), manifest)


def _captions(config: ConfigDict) -> Callable[[Sample], tuple[list[str], list[str]]]:
    """What the student and the teacher are asked about a sample."""
    return functools.partial(
        parallel_captions,
        language=config.language,
        count=config.data.caption_variants,
        english=config.data.english_variants,
        seed=config.seed,
    )


def _manifest(config: ConfigDict, models: FrozenModels) -> dict[str, Any]:
    """What the cached numbers depend on."""
    return dict(
        train=config.data.train,
        language=config.language,
        caption_variants=config.data.caption_variants,
        english_variants=config.data.english_variants,
        buckets=[list(bucket) for bucket in _buckets(config)],
        seed=config.seed,
        dtype=config.dtype,
        text_encoder={**models.student.describe(), "id": config.text_encoder.id},
        weights=dict(
            vae=cache.fingerprint(nnx.state(models.vae)),
            teacher=cache.fingerprint(models.teacher.params),
            student=cache.fingerprint(models.student.params),
        ),
    )


def _buckets(config: ConfigDict) -> list[tuple[int, int]]:
    return [tuple(bucket) for bucket in config.data.buckets]
