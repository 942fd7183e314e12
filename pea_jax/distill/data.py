"""From a config to the endless, resumable iterator of a run's batches."""

import functools
import itertools
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from pea_jax import processes
from pea_jax.data import PixelExample, cached_example, make_loader, tokenize_captions
from pea_jax.data.batches import Batches
from pea_jax.data.buckets import Size
from pea_jax.data.survey import Surveyed
from pea_jax.distill.models import FrozenModels
from pea_jax.distill.precomputed import cached_source
from pea_jax.distill.training_set import bucket_weights, caption_rules, digest, training_set
from pea_jax.report import console


def training_iterator(config: ConfigDict, models: FrozenModels, workdir: pathlib.Path) -> tuple[Batches, list[Size]]:
    """This process's batches, of numpy arrays, and the buckets of which they are.

    With `config.data.cached` moments and text states come from the cache, which is made first if it is not there.
    """
    settings: dict[str, Any] = dict(
        batch_size=config.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.data.num_threads,
        max_bad_rate=config.data.max_bad_rate,
    )
    batches = functools.partial(Batches, timeout=config.data.timeout, saves=processes.is_first())
    if config.data.cached:
        cached = cached_source(config, models, pathlib.Path(config.data.cache_dir or workdir / "cache"))
        settings |= dict(rows_by_bucket=cached.rows_by_bucket, weights=bucket_weights(config))
        return batches(make_loader(cached, cached_example, **settings)), sorted(cached.rows_by_bucket)
    chosen = training_set(config)
    console.print(f"{config.data.train}: {chosen}", highlight=False)
    example = PixelExample(caption_rules(config), chosen.buckets, config.data.time_ids, config.data.max_pixels)
    tokenize = functools.partial(tokenize_captions, student=models.student.tokenize, teacher=models.teacher.tokenize)
    settings |= dict(rows_by_bucket=chosen.rows_by_bucket, weights=chosen.weights)
    loader = make_loader(Surveyed(chosen.source, chosen.survey.rows), example, finish=tokenize, **settings)
    return batches(loader, samples=digest(chosen.source)), sorted(chosen.rows_by_bucket)


def initial_states(config: ConfigDict, models: FrozenModels) -> jax.Array | None:
    """Text states `[N, L, D]` that the adapter starts from: the captions of the first training samples."""
    if not config.linear_start:
        return None
    chosen, captions = training_set(config), caption_rules(config)
    texts = [captions(chosen.source[number]).student for number in chosen.first(config.linear_start)]
    states, _ = models.student.encode(list(itertools.chain.from_iterable(texts)))
    return states
