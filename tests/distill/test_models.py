"""From a config to the frozen models: Stable Diffusion 1.5, and text encoders side by side."""

import copy
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from flax import nnx

from pea_jax import config as configs
from pea_jax import mesh as meshes
from pea_jax.data import CaptionRules, WebDatasetSource, cached_example
from pea_jax.distill import models
from pea_jax.distill.cache import Encoder
from pea_jax.errors import PeaError
from tests import language_clips as clips
from tests import tiny_sd15
from tests.tiny_sd15 import WIDTH
from tests.tiny_text_models import CONTEXT, random_bert


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> configs.ConfigDict:
    """A tiny Stable Diffusion 1.5: one text encoder, nothing pooled; two BERTs of 24 and 32 for the new language."""
    base, first, second = (tmp_path_factory.mktemp(name) for name in ("base", "first", "second"))
    tiny_sd15.save(base)
    for folder, width in ((first, 24), (second, 32)):
        size = clips.save_cased_tokenizer(folder)
        random_bert(**clips.SMALL | {"hidden_size": width}, vocab_size=size).save_pretrained(folder)
    config = configs.sd15("zh", f"{first} + {second}", context_length=12, hidden_dim=20)
    config.base_model, config.dtype = str(base), "float32"
    return config


@pytest.fixture(scope="module")
def frozen(config: configs.ConfigDict) -> models.FrozenModels:
    return models.load_models(config, meshes.make_mesh())


def test_adapter_gives_what_the_base_model_takes(config: configs.ConfigDict, frozen: models.FrozenModels):
    """As published for Stable Diffusion 1.5: a projector without `fc`, nothing pooled."""
    adapter = models.new_adapter(config, frozen)
    assert (adapter.dims.input_dim, adapter.dims.pooled_dim, adapter.dims.output_dim) == (56, None, WIDTH)
    prompt_embeds, pooled = jax.eval_shape(adapter, jax.ShapeDtypeStruct((1, 12, 56), jnp.float32))
    assert prompt_embeds.shape == (1, 12, WIDTH) and pooled is None


def test_a_step_has_a_gradient(config: configs.ConfigDict, frozen: models.FrozenModels):
    adapter = models.new_adapter(config, frozen)
    task = models.make_task(config, frozen, adapter, meshes.make_mesh())
    batch = {
        "time_ids": jnp.zeros((2, 6)),
        "native": jnp.zeros(2),
        "moments": jnp.ones((2, 4, 4, 8)),
        "student_tokens": frozen.student.tokenize(["红苹果", "猫"]),
        "teacher_tokens": frozen.teacher.tokenize(["red apple", "cat"]),
    }
    trees = models.frozen_trees(frozen, cached=False)
    state = models.new_state(config, adapter, meshes.make_mesh())
    step = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
    (loss, terms), gradient = step(state.params, trees, batch, jax.random.key(0))
    assert np.isfinite(loss) and float(terms["features"]) > 0
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_timesteps_that_the_schedule_has(config: configs.ConfigDict, frozen: models.FrozenModels):
    adapter, mesh = models.new_adapter(config, frozen), meshes.make_mesh()
    short = dataclasses.replace(frozen, scheduler=dataclasses.replace(frozen.scheduler, num_train_timesteps=500))
    assert models.make_task(config, frozen, adapter, mesh).timesteps == range(1000)
    assert models.make_task(config, short, adapter, mesh).timesteps == range(500)
    late = copy.deepcopy(config)
    late.min_timestep = 600
    assert models.make_task(late, frozen, adapter, mesh).timesteps == range(600, 1000)
    with pytest.raises(PeaError, match="config.min_timestep=600: the schedule of .* ends at 500"):
        models.make_task(late, short, adapter, mesh)


def test_a_base_model_in_one_file(config: configs.ConfigDict, frozen: models.FrozenModels, tmp_path: pathlib.Path):
    """With the configs and tokenizers of the folder it is the folder's equal; alone it is refused."""
    tuned = copy.deepcopy(config)
    tuned.base_model, tuned.base_model_config = str(tmp_path / "tuned.safetensors"), config.base_model
    tiny_sd15.save_in_one_file(pathlib.Path(config.base_model), tmp_path / "tuned.safetensors")
    found = models.load_models(tuned, meshes.make_mesh())
    for name in ("unet", "vae"):
        assert_same(nnx.state(getattr(found, name)), nnx.state(getattr(frozen, name)))
    assert_same(found.teacher.encode(["red apple"]), frozen.teacher.encode(["red apple"]))
    assert found.scheduler == frozen.scheduler
    tuned.base_model_config = ""
    with pytest.raises(PeaError, match="neither tokenizers nor scheduler; set base_model_config to a diffusers folder"):
        models.load_models(tuned, meshes.make_mesh())


def assert_same(ours, theirs) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_an_inpainting_unet_cannot_be_the_base(config: configs.ConfigDict, tmp_path: pathlib.Path):
    other = copy.deepcopy(config)
    other.base_model = str(tmp_path)
    for part in pathlib.Path(config.base_model).iterdir():
        if part.name != "unet":
            (tmp_path / part.name).symlink_to(part)
    unet = UNet2DConditionModel.load_config(config.base_model, subfolder="unet")
    UNet2DConditionModel.from_config(unet, in_channels=9).save_pretrained(tmp_path / "unet")
    with pytest.raises(PeaError, match="its UNet takes 9 channels, not the autoencoder's 4; use the base model"):
        models.load_models(other, meshes.make_mesh())


def test_cache_holds_nothing_pooled(frozen: models.FrozenModels):
    sample = WebDatasetSource("assets/emoji/emoji-val-00000.tar")[0]
    pixels, time_ids = np.zeros((4, 4, 3), np.uint8), np.zeros(6)
    encoder = Encoder(frozen, CaptionRules("zh", variants=2), meshes.make_mesh())
    record = next(encoder.records([(sample, pixels, time_ids)]))
    assert record["states"].shape == (2, 12, 56) and "pooled_prompt_embeds" not in record
    drawn = cached_example(record, np.random.default_rng(0))
    assert drawn["prompt_embeds"].shape == (CONTEXT, WIDTH) and "pooled_prompt_embeds" not in drawn


def test_text_encoders_that_are_let_go(config: configs.ConfigDict):
    frozen = models.load_models(config, meshes.make_mesh())
    frozen.student.encode(["猫"])
    models.delete_text_encoders(frozen)
    texts = jax.tree.leaves((frozen.student.params, frozen.teacher.params))
    assert len(texts) > 40 and all(array.is_deleted() for array in texts)
    kept = jax.tree.leaves((nnx.state(frozen.unet), nnx.state(frozen.vae)))
    assert not any(array.is_deleted() for array in kept)
    assert frozen.student.describe()["context_length"] == 12  # as the adapter's folder tells it
