"""Ways to call a network's parts: the same numbers in less memory, or sooner compiled."""

import functools

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core

from pea_jax import chips, flops, hlo
from pea_jax import mesh as meshes
from pea_jax.models.bert import Bert, BertConfig
from pea_jax.models.calls import DIRECT, POLICIES, Calls, make_calls
from pea_jax.models.clip_text import CLIPText, CLIPTextConfig
from pea_jax.models.layers import Linear, abstract
from pea_jax.models.t5 import T5Config, T5Encoder
from pea_jax.models.unet import UNet2DCondition, UNetConfig

BFLOAT16 = dict(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
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


def test_gathering_computes_nothing_more(unet):
    """No gradient of a parameter: what is gathered is tied to activations that have one."""
    graphdef, params = unet
    prompt_embeds, sample = ARGUMENTS

    def counted(calls: Calls) -> float:
        gradient = jax.grad(lambda x, p: loss(graphdef, calls, x, p, sample))
        return flops.operations(jax.make_jaxpr(gradient)(prompt_embeds, params)).executed

    assert counted(make_calls(lambda tree: tree)) == counted(DIRECT) > 0


@pytest.mark.parametrize(
    "slice_of_chips", ["v5e:2x2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("v6e:2x2", "v4:2x2x1"))]
)
def test_chips_hold_few_layers_and_compute_while_they_receive_the_next(slice_of_chips):
    """Two passes through six layers, and the gradient of the first, for TPUs that have memory for all of them."""
    mesh = meshes.make_mesh(fsdp=4, devices=chips.topology_devices(slice_of_chips))
    calls, width, count = make_calls(meshes.gathering(mesh)), 2048, 6
    layers = [nnx.split(abstract(lambda: Linear(width, width, use_bias=False, **BFLOAT16))) for _ in range(count)]
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))

    def through(params, x):
        for (graphdef, _), each in zip(layers, params, strict=True):
            x = x + jax.nn.silu(calls.layer(nnx.merge(graphdef, each), x))
        return x

    def step(scale, params, x):
        difference = through(params, x * scale) - jax.lax.stop_gradient(through(params, x))
        return jnp.mean(jnp.square(difference.astype(jnp.float32)))

    def placed(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=sharding)

    params = [jax.tree.map(lambda leaf: placed(leaf, split), each) for _, each in layers]
    x = placed(jax.ShapeDtypeStruct((32768, width), jnp.bfloat16), meshes.batch_sharding(mesh))
    scale = placed(jax.ShapeDtypeStruct((1, width), jnp.bfloat16), meshes.replicated(mesh))
    options = meshes.compiler_options(mesh)
    with jax.default_matmul_precision("default"):
        lowered = jax.jit(jax.grad(step), compiler_options=options).lower(scale, params, x)
    program, layer = hlo.finish(lowered).text, width * width * 2
    assert hlo.traffic(program)["gathered"] == 3 * count * layer * 3 / 4
    assert layer <= hlo.gathered_at_once(program) <= 4 * layer, hlo.gathered_at_once(program) / layer
    # Started and done apart, or spread over what is computed at the same time, or on another core.
    gathering = [one for one in hlo.instructions(program, fused=True) if one.opcode.startswith("all-gather")]
    beside = [one for one in gathering if one.within or one.opcode == "all-gather-start"]
    waited_for = [one for one in gathering if not one.within and one.opcode == "all-gather"]
    assert len(beside) >= 2 * len(waited_for)


def constrained(jaxpr: core.Jaxpr) -> list[tuple[int, ...]]:
    """Shapes of what is given a sharding, as often as it is."""
    shapes = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "sharding_constraint":
            shapes += [x.aval.shape for x in equation.outvars]
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            shapes += constrained(inner) if isinstance(inner, core.Jaxpr) else []
    return shapes


def test_every_large_parameter_is_prepared_where_it_is_used(unet):
    """Those of a linear layer or convolution are gathered once a call, a few layers' at a time."""
    graphdef, params = unet
    whole, together = meshes.replicated(meshes.make_mesh(devices=jax.devices()[:1])), []

    def gather(tree):
        together.append(sum(1 for x in jax.tree.leaves(tree) if x.ndim > 1))
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, whole), tree)

    arguments = jnp.ones((2, 5, 12)), params, jnp.ones((2, 8, 8, 4))
    jaxpr = jax.make_jaxpr(functools.partial(loss, graphdef, make_calls(gather)))(*arguments)
    found = [shape for shape in constrained(jaxpr.jaxpr) if len(shape) > 1]
    assert sorted(found) == sorted(x.shape for x in jax.tree.leaves(params) if x.ndim > 1)
    assert max(together) <= 10


@pytest.mark.parametrize(
    ("calls", "count"), [(make_calls(), 1), (make_calls(None, "full"), 1), (make_calls(lambda tree: tree), 3)]
)
def test_equal_layers_are_traced_once_unless_they_gather(calls, count):
    """Else to trace a step of Stable Diffusion XL takes seconds, for each of its sizes of pictures."""
    traced = []

    class Block(nnx.Module):
        def __init__(self, width: int):
            self.linear = Linear(width, width, **BFLOAT16)

        def __call__(self, x, size):
            traced.append(x.shape)
            return self.linear(x) * size

    blocks = [Block(width) for width in (4, 4, 4, 8)]

    def through(x):
        for block in blocks[:3]:
            x = calls.layer(block, x, size=2)
        return jnp.sum(calls.layer(blocks[3], jnp.concatenate([x, x], axis=-1), size=2))

    jax.make_jaxpr(jax.grad(through))(jnp.ones((2, 4), jnp.bfloat16))
    assert traced == [*[(2, 4)] * count, (2, 8)]


CLIP = CLIPTextConfig(num_hidden_layers=4, hidden_size=16, num_attention_heads=2)
BERT, T5 = BertConfig(num_hidden_layers=4, hidden_size=16, num_attention_heads=2), T5Config(num_layers=4, d_model=16)


@pytest.mark.parametrize(
    ("encoder", "kinds"),
    [
        (functools.partial(Bert, BERT), 1),
        (functools.partial(CLIPText, CLIP, with_projection=False), 1),
        (functools.partial(T5Encoder, T5), 2),
    ],
)
def test_of_layers_that_are_alike_one_is_traced(encoder: functools.partial, kinds: int):
    """T5's first alone has the table of distances."""
    traced = jax.make_jaxpr(lambda ids: encoder()(ids)[0])(jnp.zeros((1, 5), jnp.int32))
    layers = [step.params["jaxpr"] for step in traced.eqns if step.params.get("name") == "_computed"]
    assert len(layers) == 4 and len({id(layer) for layer in layers}) == kinds
