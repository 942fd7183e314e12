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
from pea_jax.distill.cache import fingerprint
from pea_jax.distill.models import FrozenModels
from pea_jax.distill.precomputed import cached_source
from pea_jax.distill.training_set import TrainingSet, bucket_weights, caption_rules, digest, training_set
from pea_jax.report import console


def common_training_set(config: ConfigDict) -> TrainingSet:
    """What all processes of a run train on; the first looks at the data, and leaves what it saw on disk for the others.

    Raises:
      PeaError: as `training_set`, or another process sees other data.
    """
    with processes.first_goes_ahead("survey"):
        training = training_set(config)
    processes.check_same("training set", lambda: f"{digest(training.source)} {fingerprint(training.survey.rows)}")
    return training


def training_iterator(
    config: ConfigDict, models: FrozenModels, training: TrainingSet, workdir: pathlib.Path
) -> tuple[Batches, list[Size]]:
    """This process's batches of a training set, of numpy arrays, and the buckets of which they are.

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
        cached = cached_source(config, models, training, pathlib.Path(config.data.cache_dir or workdir / "cache"))
        settings |= dict(rows_by_bucket=cached.rows_by_bucket, weights=bucket_weights(config))
        return batches(make_loader(cached, cached_example, **settings)), sorted(cached.rows_by_bucket)
    console.print(f"{config.data.train}: {training}", highlight=False)
    example = PixelExample(caption_rules(config), training.buckets, config.data.time_ids, config.data.max_pixels)
    tokenize = functools.partial(tokenize_captions, student=models.student.tokenize, teacher=models.teacher.tokenize)
    settings |= dict(rows_by_bucket=training.rows_by_bucket, weights=training.weights)
    loader = make_loader(Surveyed(training.source, training.survey.rows), example, finish=tokenize, **settings)
    return batches(loader, samples=digest(training.source)), sorted(training.rows_by_bucket)


def initial_states(config: ConfigDict, models: FrozenModels, training: TrainingSet | None = None) -> jax.Array | None:
    """Text states `[N, L, D]` that the adapter starts from: the captions of the first training samples.

    They are the config's, opened here, where none are given and `config.linear_start` asks for some.
    """
    if not config.linear_start:
        return None
    training, captions = training or training_set(config), caption_rules(config)
    texts = [captions(training.source[number]).student for number in training.first(config.linear_start)]
    states, _ = models.student.encode(list(itertools.chain.from_iterable(texts)))
    return states
