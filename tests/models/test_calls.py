"""Ways to call a UNet's parts: the same numbers in less memory."""

import functools

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pea_jax import mesh as meshes
from pea_jax.models.calls import DIRECT, POLICIES, Calls, make_calls
from pea_jax.models.unet import UNet2DCondition, UNetConfig

SMALL = dict(
    block_out_channels=(8, 16),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    transformer_layers_per_block=3,
    attention_head_dim=2,
    cross_attention_dim=12,
    norm_num_groups=4,
)


def random_unet(**fields):
    """Graph definition and random parameters."""
    graphdef, params = nnx.split(UNet2DCondition(UNetConfig.from_dict(SMALL | fields)))
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    drawn = [(x + 0.2 * rng.normal(size=x.shape)).astype(np.float32) for x in leaves]
    return graphdef, jax.tree.unflatten(treedef, drawn)


@pytest.fixture(scope="module")
def unet():
    return random_unet()


def loss(graphdef, calls: Calls, prompt_embeds, params, sample):
    prediction, features = nnx.merge(graphdef, params)(sample, jnp.ones(len(sample)), prompt_embeds, calls=calls)
    return sum(jnp.mean(jnp.square(x)) for x in (prediction, *features.values()))


ARGUMENTS = jnp.ones((2, 5, 12)), jnp.linspace(-1, 1, 2 * 16 * 16 * 4).reshape(2, 16, 16, 4)


def test_loss_and_gradient_do_not_depend_on_the_policy():
    graphdef, params = random_unet(transformer_layers_per_block=1)
    prompt_embeds, sample = ARGUMENTS
    found = {}
    for remat in POLICIES:
        gradient = jax.value_and_grad(functools.partial(loss, graphdef, make_calls(None, remat)))
        found[remat] = jax.jit(gradient)(prompt_embeds, params, sample)
    expected, gradient = found["none"]
    assert np.abs(gradient).max() > 0
    for remat in ("block", "full"):
        np.testing.assert_allclose(found[remat][0], expected, rtol=1e-5)
        np.testing.assert_allclose(found[remat][1], gradient, rtol=1e-4, atol=1e-5 * float(np.abs(gradient).max()))


def kept(graphdef, params, calls: Calls) -> int:
    """Bytes of activations that the forward pass leaves to the backward pass."""
    prompt_embeds, sample = ARGUMENTS

    def residuals(prompt_embeds, params, sample):
        _, backward = jax.vjp(lambda x: loss(graphdef, calls, x, params, sample), prompt_embeds)
        return backward

    found = jax.eval_shape(residuals, prompt_embeds, params, sample)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(found) if x.ndim > 0 and x.shape[0] == len(sample))


def test_each_policy_keeps_less_than_the_one_before(unet):
    """What the compiler makes of it is asked of the accelerators' compilers: XLA's for CPUs computes nothing again."""
    none, block, full = (kept(*unet, make_calls(None, remat)) for remat in ("none", "block", "full"))
    assert none > 3 * block and block > 1.2 * full, (none, block, full)


def test_gathered_parameters_are_not_kept(unet, capsys):
    """The backward pass gets the parameters as they came in, and gathers them again."""
    graphdef, params = unet
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    whole = meshes.replicated(mesh)

    def gather(tree):
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, whole), tree)

    def lines(calls, prepare):
        prompt_embeds, sample = ARGUMENTS
        function = functools.partial(loss, graphdef, calls)
        jax.ad_checkpoint.print_saved_residuals(lambda x, p: function(x, prepare(p), sample), prompt_embeds, params)
        return [line for line in capsys.readouterr().out.splitlines() if "sharding_constraint" in line]

    assert len(lines(DIRECT, gather)) > 10
    assert not lines(make_calls(gather), lambda tree: tree)


def test_every_large_parameter_is_prepared_where_it_is_used(unet):
    """Those of a linear layer or convolution are seen by `gather` once a call, a few layers' at a time."""
    graphdef, params = unet
    seen: list[list[tuple[int, ...]]] = []

    def gather(tree):
        seen.append([x.shape for x in jax.tree.leaves(tree) if x.ndim > 1])
        return tree

    arguments = jnp.ones((2, 5, 12)), params, jnp.ones((2, 8, 8, 4))
    jax.eval_shape(functools.partial(loss, graphdef, make_calls(gather)), *arguments)
    assert sorted(sum(seen, [])) == sorted(x.shape for x in jax.tree.leaves(params) if x.ndim > 1)
    assert max(map(len, seen)) <= 10 and len(seen) > 15
    assert make_calls() is DIRECT
