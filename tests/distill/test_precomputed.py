"""What is asked before a cache is made."""

import json
from typing import Any

import pytest

from pea_jax import config as configs
from pea_jax.distill.precomputed import cached_source
from pea_jax.distill.training_set import training_set
from pea_jax.errors import PeaError
from tests.data.conftest import png, write_shard  # noqa: F401 (a fixture)

NO_MODELS: Any = None  # that would be asked for anything


@pytest.mark.parametrize("weights", [(), (1.0, 1.0)])
def test_buckets_that_cannot_fill_a_batch_are_refused_before_anything_is_made(tmp_path, write_shard, weights):  # noqa: F811
    """Drawn by weight, a bucket may have no samples at all; the cache would have no part of it, and none would miss."""
    record = json.dumps(dict(caption_ru="щи", caption_en="soup")).encode()
    wide = {"e": {"png": png(size=(96, 64)), "json": record}} if not weights else {}
    square = {name: {"png": png(size=(64, 64)), "json": record} for name in "abcd"}
    config = configs.emoji("ru")
    config.data.train, config.data.english = write_shard("a.tar", {**square, **wide}), ""
    config.data.buckets, config.data.bucket_weights = ((64, 64), (96, 64)), weights
    config.batch_size = 2
    with pytest.raises(PeaError, match=rf"bucket \(96, 64\): {len(wide)} samples are less than one batch of 2"):
        cached_source(config, NO_MODELS, training_set(config), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
