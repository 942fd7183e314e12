"""Parts of a UNet that are trained in place of an adapter: which they are, and that the losses are the adapter's."""

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

BATCH, LENGTH, STATE, POOLED, WIDTH = 2, 3, 12, 16, 24


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_sdxl.random_unet(WIDTH, POOLED).save_pretrained(folder / "unet")
    return nnx.split(load_unet(folder))


def trained(unet, trains: str):
    """The shapes of what is trained, by name."""
    return jax.eval_shape(lambda params: parts.start(PARTS[trains], params, jax.random.key(0)), unet[1])


def modules(unet, trains: str) -> set[str]:
    return {name.rpartition(".")[0] for name in trained(unet, trains)}


def test_parts_are_what_they_are_called(unet):
    attention = {f"down_blocks.1.attentions.0.transformer_blocks.0.attn2.{name}" for name in ("to_k", "to_v")}
    found = modules(unet, "key_value")
    assert attention <= found and all(name.endswith(("attn2.to_k", "attn2.to_v")) for name in found)
    assert {name.rpartition("attn2.")[2] for name in modules(unet, "lora")} == {"to_q", "to_k", "to_v", "to_out.0"}
    assert any(".attn1.to_q" in name for name in modules(unet, "style"))
    assert sum(x.size for x in trained(unet, "unet").values()) == sum(x.size for x in jax.tree.leaves(unet[1]))


def test_a_difference_is_added_where_it_belongs(unet):
    name, shapes = next(iter(trained(unet, "lora").items()))
    rng = np.random.default_rng(0)
    pair = {which: rng.normal(size=shape.shape).astype(np.float32) for which, shape in shapes.items()}
    merged = parts.merged(unet[1], {name: pair}, scale=0.5)
    before, after = _by_name(unet[1]), _by_name(merged)
    changed = [each for each in before if not np.array_equal(before[each], after[each])]
    assert changed == [name]
    np.testing.assert_allclose(after[name] - before[name], 0.5 * pair["down"] @ pair["up"], atol=1e-5)


def test_a_parameter_is_replaced(unet):
    name = next(iter(trained(unet, "key_value")))
    ones = np.ones_like(_by_name(unet[1])[name])
    assert np.array_equal(_by_name(parts.merged(unet[1], {name: ones}))[name], ones)


def _by_name(params) -> dict[str, np.ndarray]:
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(params)}


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

    @jax.jit
    def both(params, frozen, batch, key):
        return task.loss(params["join"], frozen, batch, key), jax.value_and_grad(tuning.loss, has_aux=True)(
            params, frozen, batch, key
        )

    (expected, terms), ((loss, found), gradient) = both(params, frozen, batch, jax.random.key(3))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert found.keys() == terms.keys()
    assert all(float(abs(value).max()) > 0 for value in jax.tree.leaves(gradient["unet"]))


def test_a_style_is_learnt_from_english_alone(setting):
    task, join, frozen, batch = setting
    style = StyleTask(**vars(task) | {"condition_dropout": 0.5}, part=PARTS["style"])
    student, teacher = style.conditionings(join, frozen, batch, jax.random.key(1))
    assert student is teacher
    dropped, kept = (
        (student.prompt_embeds == expected).all((1, 2)).tolist()
        for expected in (jnp.repeat(frozen["null_prompt_embeds"], BATCH, axis=0), batch["prompt_embeds"])
    )
    assert sorted(dropped) == sorted(kept) == [False, True] and dropped != kept
    assert student.pooled_prompt_embeds is batch["pooled_prompt_embeds"]
