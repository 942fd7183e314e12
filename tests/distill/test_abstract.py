"""Shapes, dtypes and places of a run that is not loaded are those of one that is."""

import copy
import shutil

import jax
import numpy as np
import pytest

from pea_jax import config as configs
from pea_jax import mesh as meshes
from pea_jax.data import PixelExample, cached_example, tokenize_captions
from pea_jax.distill import models
from pea_jax.distill.abstract import abstract_run
from pea_jax.distill.cache import Encoder
from pea_jax.distill.training_set import caption_rules, training_set


@pytest.fixture(scope="module")
def config(world):
    config = configs.emoji("ru")
    config.update_from_flattened_dict(
        {name: value if isinstance(value, (int, float, bool)) else str(value) for name, value in world[1].items()}
    )
    return config


@pytest.fixture(scope="module")
def loaded(config):
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    return mesh, models.load_models(config, mesh)


@pytest.mark.parametrize("cached", [True, False])
def test_a_run_without_weights_is_shaped_as_one_with(config, loaded, tmp_path, cached):
    mesh, frozen_models = loaded
    config = copy.deepcopy(config)
    config.data.cached = cached
    adapter = models.new_adapter(config, frozen_models)
    real = models.new_state(config, adapter, mesh), models.frozen_trees(frozen_models, cached=cached)
    batch = _batch(config, frozen_models, mesh)
    without_weights = shutil.ignore_patterns("*.safetensors", "*.bin")
    config.base_model = str(shutil.copytree(config.base_model, tmp_path / "base", ignore=without_weights))
    run = abstract_run(config, mesh)
    assert list(run.batches) == [(64, 64)]
    assert jax.tree.map(described, (*real, batch)) == jax.tree.map(
        described, (run.state, run.frozen, run.batches[64, 64])
    )
    state, metrics = jax.eval_shape(run.train_step, run.state, run.frozen, run.batches[64, 64])
    assert metrics["loss"].shape == () and jax.tree.structure(state) == jax.tree.structure(run.state)


def described(leaf):
    return leaf.shape, leaf.dtype, leaf.sharding


def _batch(config, frozen_models, mesh):
    """Of one sample, again and again."""
    chosen = training_set(config)
    sample, captions = chosen.source[0], caption_rules(config)
    example = PixelExample(captions, chosen.buckets)(sample, np.random.default_rng(0))
    if config.data.cached:
        pixels = np.zeros((64, 64, 3), np.uint8)
        record = next(Encoder(frozen_models, captions, mesh).records([(sample, pixels, example["time_ids"])]))
        example = cached_example(record, np.random.default_rng(0))
    batch = {name: np.stack([np.asarray(value)] * config.batch_size) for name, value in example.items()}
    if not config.data.cached:
        batch = tokenize_captions(batch, frozen_models.student.tokenize, frozen_models.teacher.tokenize)
    return meshes.put_batch(batch, mesh)
