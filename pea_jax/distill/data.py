"""From a config to the endless, resumable iterator of a run's batches."""

import functools
import itertools
import pathlib
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from pea_jax.data import (
    CachedSource,
    PixelExample,
    WebDatasetSource,
    cached_example,
    make_loader,
    tokenize_captions,
    write_cache,
)
from pea_jax.data.batches import Batches
from pea_jax.data.buckets import add_time_ids, group_by_bucket, nearest_buckets, resize_and_crop
from pea_jax.distill import cache
from pea_jax.distill.models import FrozenModels
from pea_jax.distill.training_set import buckets_of, caption_rules
from pea_jax.errors import PeaError
from pea_jax.report import console, track


def training_iterator(config: ConfigDict, models: FrozenModels, workdir: pathlib.Path) -> Batches:
    """This process's batches, of numpy arrays.

    With `config.data.cached` moments and text states come from the cache, which is made first if it is not there.
    """
    settings = dict(
        batch_size=config.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.data.num_threads,
        max_bad_rate=config.data.max_bad_rate,
    )
    batches = functools.partial(Batches, timeout=config.data.timeout, saves=jax.process_index() == 0)
    if config.data.cached:
        cached = cached_source(config, models, pathlib.Path(config.data.cache_dir or workdir / "cache"))
        return batches(make_loader(cached, cached_example, **settings))
    source, buckets = WebDatasetSource(config.data.train), buckets_of(config)
    example = PixelExample(caption_rules(config), buckets, config.data.time_ids, config.data.max_pixels)
    tokenize = functools.partial(tokenize_captions, student=models.student.tokenize, teacher=models.teacher.tokenize)
    rows = None
    if len(buckets) > 1:
        sizes = np.array([source[n].open().size for n in range(len(source))])
        nearest, _ = nearest_buckets(sizes[:, 0], sizes[:, 1], buckets)
        rows = group_by_bucket(np.arange(len(source)), nearest, buckets)
    return batches(make_loader(source, example, rows_by_bucket=rows, finish=tokenize, **settings))


def initial_states(config: ConfigDict, models: FrozenModels) -> jax.Array | None:
    """Text states `[N, L, D]` that the adapter starts from: the captions of the first training samples."""
    if not config.linear_start:
        return None
    source, captions = WebDatasetSource(config.data.train), caption_rules(config)
    texts = [captions(source[n]).student for n in range(min(config.linear_start, len(source)))]
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
    if len(buckets := buckets_of(config)) > 1:
        raise PeaError("config.data.cached: a cache holds pictures of one bucket; give one or set it to False")
    bucket, rng = buckets[0], np.random.default_rng(config.seed)

    def read(number: int):
        sample = source[number]
        image = sample.rgb(config.data.max_pixels)
        pixels, top_left = resize_and_crop(image, bucket, rng)
        time_ids = add_time_ids(image.size, top_left, bucket, config.data.time_ids)
        return sample, pixels.astype(np.float32) / 127.5 - 1, time_ids

    samples = map(read, track(range(len(source)), "latents and text states"))
    write_cache(str(folder), cache.records(models, samples, caption_rules(config)), manifest)


def _manifest(config: ConfigDict, models: FrozenModels) -> dict[str, Any]:
    """What the cached numbers depend on."""
    return dict(
        train=config.data.train,
        language=config.language,
        caption_variants=config.data.caption_variants,
        english_variants=config.data.english_variants,
        caption_fields=config.data.caption_fields.to_dict(),
        cleaning=config.data.cleaning,
        buckets=[list(bucket) for bucket in buckets_of(config)],
        time_ids=config.data.time_ids,
        seed=config.seed,
        dtype=config.dtype,
        text_encoder={**models.student.describe(), "id": config.text_encoder.id},
        weights=dict(
            vae=cache.fingerprint(nnx.state(models.vae)),
            teacher=cache.fingerprint(models.teacher.params),
            student=cache.fingerprint(models.student.params),
        ),
    )
