"""The cache of a config's training set: made part by part, and opened only if it was made as the config says."""

import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pea_jax import processes
from pea_jax.data import CachedSource, CacheWriter, Sample, divide
from pea_jax.data.buckets import Size
from pea_jax.data.loader import check_buckets, cut_out
from pea_jax.data.skipping import BadSamples
from pea_jax.data.survey import Source
from pea_jax.distill.cache import Encoder, fingerprint
from pea_jax.distill.models import Encoders, load_encoders
from pea_jax.distill.training_set import TrainingSet, buckets_of, caption_rules, digest
from pea_jax.errors import BadSample
from pea_jax.mesh import make_mesh
from pea_jax.report import console, counting
from pea_jax.threads import in_order

Read = tuple[Sample, np.ndarray, np.ndarray]  # pixels uint8 [H, W, 3], time_ids [6]


def cached_source(config: ConfigDict, models: Encoders, training: TrainingSet, folder: pathlib.Path) -> CachedSource:
    """The cache of a config's `training` set, after what is missing of it is made.

    Several processes share the work; each then loads the encoders once more, for its own devices. They must see the
    same `folder`.

    Raises:
      PeaError: the cache in `folder` was made with other models, data or settings, or cannot be made; or a bucket has
        fewer samples than a batch, before anything is made for it.
    """
    check_buckets(training.rows_by_bucket, config.batch_size)
    mesh, encoders = models.student.mesh, models
    if mesh is None or processes.several():
        mesh = make_mesh(devices=jax.local_devices())
        encoders = load_encoders(config, mesh)
    manifest = made_with(config, encoders, training.source)
    _write_missing(config, encoders, folder, mesh, training, manifest)
    processes.wait_for_all("cache")
    return CachedSource(folder, manifest)


def precompute(config: ConfigDict, models: Encoders, training: TrainingSet, folder: pathlib.Path, mesh: Mesh) -> int:
    """Write this process's share of the parts that are missing in `folder`, and return how many they were.

    Args:
      config: names the rules.
      models: on `mesh`.
      training: the set of `config`.
      folder: where to.
      mesh: of this process's devices.

    Raises:
      PeaError: as `cached_source`, or too many samples cannot be used, or the folder cannot be written.
    """
    manifest = made_with(config, models, training.source)
    return _write_missing(config, models, folder, mesh, training, manifest)


def _write_missing(
    config: ConfigDict,
    models: Encoders,
    folder: pathlib.Path,
    mesh: Mesh,
    training: TrainingSet,
    manifest: dict[str, Any],
) -> int:
    processes.check_same("config or model", lambda: json.dumps(manifest, sort_keys=True))
    writer = CacheWriter(folder, manifest, divide(training.rows_by_bucket))
    missing = writer.missing(jax.process_index(), jax.process_count())
    if not missing:
        return 0
    count = sum(len(part.rows) for part in missing)
    console.print(f"{folder}: computing latents and text states of {count} samples, once")
    encoder, bad = Encoder(models, caption_rules(config), mesh), BadSamples(config.data.max_bad_rate)
    with counting(count, "latents and text states") as advance:
        for part in missing:
            reads = (functools.partial(_read, config, training.source, int(row), part.bucket) for row in part.rows)
            found = zip(part.rows, in_order(reads, config.data.num_threads), strict=True)
            samples = _good(found, bad, advance)
            writer.write(part, encoder.records(samples))
    return len(missing)


def _read(config: ConfigDict, source: Source, row: int, bucket: Size) -> Read | BadSample:
    """One sample, cut out at a place that depends on nothing but seed and row."""
    try:
        sample = source[row]
        image = sample.rgb(config.data.max_pixels)
        pixels, time_ids = cut_out(
            sample, image, bucket, np.random.default_rng([config.seed, row]), config.data.time_ids
        )
    except BadSample as error:
        return error
    return sample, pixels, time_ids


def _good(
    found: Iterable[tuple[int, Read | BadSample]], bad: BadSamples, advance: Callable[[int], None]
) -> Iterator[Read]:
    for row, sample in found:
        advance(1)
        if isinstance(sample, BadSample):
            bad.add(int(row), sample)
        else:
            bad.add_good()
            yield sample


def made_with(config: ConfigDict, models: Encoders, source: Source) -> dict[str, Any]:
    """What the cached numbers depend on; `source` is that of the config's training set."""
    data = config.data
    return dict(
        train=data.train,
        english=data.english,
        samples=digest(source),
        language=config.language,
        caption_variants=data.caption_variants,
        more_languages=data.more_languages,
        caption_fields=data.caption_fields.to_dict(),
        cleaning=data.cleaning,
        filters=data.filters.to_dict(),
        buckets=[list(bucket) for bucket in buckets_of(config)],
        time_ids=data.time_ids,
        seed=config.seed,
        dtype=config.dtype,
        text_encoder={**models.student.describe(), "id": config.text_encoder.id},
        weights=dict(
            vae=fingerprint(nnx.state(models.vae)),
            teacher=fingerprint(models.teacher.params),
            student=fingerprint(models.student.params),
        ),
    )
