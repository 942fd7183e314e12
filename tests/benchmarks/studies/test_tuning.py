"""Parts of a UNet that are trained in place of an adapter: which they are, and that the losses are the adapter's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.studies import parts
from benchmarks.studies.parts import PARTS
from benchmarks.studies.tuning import StyleTask, TuningTask
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.distill.task import DistillationTask, LossWeights
from pea_jax.sampling.noise_schedule import NoiseSchedule, SchedulerConfig
from pea_jax.weights import load_unet
from tests import tiny_sdxl
from tests.torch_oracle import quick_jit

BATCH, LENGTH, STATE, POOLED, WIDTH = 2, 3, 12, 16, 24


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_sdxl.random_unet(WIDTH, POOLED).save_pretrained(folder / "unet")
    return nnx.split(load_unet(folder))


def names_of(unet, trains: str) -> set[str]:
    """The modules that a part takes in, without numbers."""
    return {name.rpartition(".")[0] for name in parts.start(PARTS[trains], unet[1], jax.random.key(0))}


def test_parts_are_what_they_are_called(unet):
    attention = {f"down_blocks.1.attentions.0.transformer_blocks.0.attn2.{name}" for name in ("to_k", "to_v")}
    found = names_of(unet, "key_value")
    assert attention <= found and all(name.endswith(("attn2.to_k", "attn2.to_v")) for name in found)
    assert {name.rpartition("attn2.")[2] for name in names_of(unet, "lora")} == {"to_q", "to_k", "to_v", "to_out.0"}
    assert any(".attn1.to_q" in name for name in names_of(unet, "style"))
    whole = parts.start(PARTS["unet"], unet[1], jax.random.key(0))
    assert sum(x.size for x in whole.values()) == sum(x.size for x in jax.tree.leaves(unet[1]))


@pytest.mark.parametrize("trains", sorted(PARTS))
def test_nothing_is_changed_before_training(unet, trains: str):
    merged = parts.merged(unet[1], parts.start(PARTS[trains], unet[1], jax.random.key(0)))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), merged, unet[1]))


def test_a_difference_is_added_where_it_belongs(unet):
    trained = parts.start(PARTS["lora"], unet[1], jax.random.key(0))
    name = next(iter(trained))
    trained[name]["up"] += 1.0
    merged = parts.merged(unet[1], trained, scale=0.5)
    changed = jax.tree.map(lambda a, b: float(abs(a - b).max()), merged, unet[1])
    assert sum(value > 0 for value in jax.tree.leaves(changed)) == 1
    expected = 0.5 * np.asarray(trained[name]["down"]).sum(1)  # of every column
    difference = parts.start(dataclasses.replace(PARTS["lora"], rank=0), merged, jax.random.key(0))[name]
    difference = difference - parts.start(dataclasses.replace(PARTS["lora"], rank=0), unet[1], jax.random.key(0))[name]
    np.testing.assert_allclose(difference, np.broadcast_to(expected[:, None], difference.shape), atol=1e-5)


@pytest.fixture(scope="module")
def setting(unet):
    """A task of an adapter's training, the join's parameters, frozen trees and a batch."""
    join, params = nnx.split(PEAdapter(AdapterDims(STATE, 8, POOLED, WIDTH, num_layers=1), rngs=nnx.Rngs(1)))
    noise = SchedulerConfig(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    task = DistillationTask(
        join, unet[0], None, None, None, NoiseSchedule.from_config(noise), 0.5, LossWeights(hybrid=False)
    )
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    frozen = dict(unet=unet[1], null_states=normal(1, LENGTH, STATE), null_prompt_embeds=normal(1, LENGTH, WIDTH))
    batch = dict(
        moments=normal(BATCH, 8, 8, 8),
        time_ids=jnp.full((BATCH, 6), 64.0),
        native=jnp.zeros(BATCH),
        states=normal(BATCH, LENGTH, STATE),
        prompt_embeds=normal(BATCH, LENGTH, WIDTH),
        pooled_prompt_embeds=normal(BATCH, POOLED),
    )
    return task, params, frozen, batch


def test_an_untouched_unet_has_the_adapters_loss_and_a_gradient_where_it_is_trained(setting):
    task, join, frozen, batch = setting
    part = PARTS["key_value"]
    params = dict(join=join, unet=parts.start(part, frozen["unet"], jax.random.key(0)))
    tuning = TuningTask(**vars(task), part=part)
    key = jax.random.key(3)
    expected, terms = quick_jit(task.loss)(join, frozen, batch, key)
    (loss, found), gradient = quick_jit(jax.value_and_grad(tuning.loss, has_aux=True))(params, frozen, batch, key)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert found.keys() == terms.keys()
    assert all(float(abs(value).max()) > 0 for value in jax.tree.leaves(gradient["unet"]))


def test_a_style_is_learnt_from_english_and_pictures(setting):
    task, join, frozen, batch = setting
    params = dict(join=join, unet=parts.start(PARTS["style"], frozen["unet"], jax.random.key(0)))
    weights = LossWeights(noise=1.0, output=0.0, features=0.0, hybrid=False)
    style = StyleTask(**{**vars(task), "weights": weights}, part=PARTS["style"])
    (loss, terms), gradient = quick_jit(jax.value_and_grad(style.loss, has_aux=True))(
        params, frozen, batch, jax.random.key(0)
    )
    np.testing.assert_allclose(loss, terms["noise"], rtol=1e-6)
    assert not any(float(abs(value).max()) for value in jax.tree.leaves(gradient["join"]))
    assert any(float(abs(value).max()) for value in jax.tree.leaves(gradient["unet"]))
