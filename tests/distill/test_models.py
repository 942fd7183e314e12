"""From a config to the frozen models: Stable Diffusion 1.5, and text encoders side by side."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel

from pea_jax import config as configs
from pea_jax import mesh as meshes
from pea_jax.data import WebDatasetSource, cached_example, parallel_captions
from pea_jax.distill import models
from pea_jax.distill.cache import records
from tests import language_clips as clips
from tests.tiny_text_models import CONTEXT, VOCABULARY, clip_tokenizer, random_bert, random_clip
from tests.torch_oracle import quick_jit

WIDTH = 16


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> configs.ConfigDict:
    """A tiny Stable Diffusion 1.5: one text encoder, nothing pooled; two BERTs of 24 and 32 for the new language."""
    base, first, second = (tmp_path_factory.mktemp(name) for name in ("base", "first", "second"))
    text = dict(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=20, num_hidden_layers=1)
    random_clip(
        with_projection=False, **text, num_attention_heads=2, max_position_embeddings=CONTEXT, eos_token_id=2
    ).save_pretrained(base / "text_encoder")
    clip_tokenizer().save_pretrained(base / "tokenizer")
    UNet2DConditionModel(
        sample_size=4, block_out_channels=(4, 8), layers_per_block=1, cross_attention_dim=WIDTH, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=2,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(base / "unet")  # fmt: skip
    AutoencoderKL(block_out_channels=(4,), latent_channels=4, norm_num_groups=2).save_pretrained(base / "vae")
    DPMSolverMultistepScheduler(beta_schedule="scaled_linear").save_pretrained(base / "scheduler")
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
    step = quick_jit(jax.value_and_grad(task.loss, has_aux=True))
    (loss, terms), gradient = step(state.params, trees, batch, jax.random.key(0))
    assert np.isfinite(loss) and float(terms["features"]) > 0
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_cache_holds_nothing_pooled(frozen: models.FrozenModels):
    sample = WebDatasetSource("assets/emoji/emoji-val-00000.tar")[0]
    pixels, time_ids = np.zeros((4, 4, 3), np.float32), np.zeros(6)
    captions = functools.partial(parallel_captions, language="zh", count=2, seed=0)
    record = next(records(frozen, [(sample, pixels, time_ids)], captions))
    assert record["states"].shape == (2, 12, 56) and "pooled_prompt_embeds" not in record
    drawn = cached_example(record, np.random.default_rng(0))
    assert drawn["prompt_embeds"].shape == (CONTEXT, WIDTH) and "pooled_prompt_embeds" not in drawn
