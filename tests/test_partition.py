"""The rules cover the networks, at full size and without memory, and say what they did."""

import re

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from pea_jax import partition
from pea_jax.errors import PeaError
from pea_jax.mesh import AXES
from pea_jax.models import layers
from pea_jax.models.clip_text import CLIPText, CLIPTextConfig
from pea_jax.models.quantisation import quantise
from pea_jax.models.unet import UNet2DCondition, UNetConfig
from tests import published_configs

BIG_G = dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=2, num_attention_heads=20, projection_dim=1280)


def mesh_of(fsdp: int) -> AbstractMesh:
    return AbstractMesh((1, fsdp), AXES)


def placed(tree, mesh: AbstractMesh):
    leaves = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=partition.frozen_sharding(mesh, name, x.shape, x.dtype))
        for name, x in partition.named_leaves(tree)
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


@pytest.fixture(scope="module")
def sdxl():
    config = UNetConfig.from_dict(published_configs.SDXL)
    return nnx.state(nnx.eval_shape(lambda: UNet2DCondition(config, param_dtype=jnp.bfloat16)))


@pytest.mark.parametrize("fsdp", [2, 8, 64])
def test_a_chip_holds_its_share_of_sdxl(sdxl, fsdp):
    tree = placed(sdxl, mesh_of(fsdp))
    for name, leaf in partition.named_leaves(tree):
        assert leaf.size * 2 < 2**20 or leaf.sharding.spec != PartitionSpec(), name
    found = partition.placements(tree)
    total = sum(group.size for group in found.values())
    whole = sum(group.size for (_, where), group in found.items() if where == "whole")
    assert total == 2 * 2_567_463_684 and whole < 0.1 * total
    assert sum(group.per_chip for group in found.values()) == whole + (total - whole) // fsdp


def test_a_table_of_tokens_is_split():
    """Whose number no mesh divides; what is small is whole."""
    encoder = CLIPText(CLIPTextConfig.from_dict(BIG_G | {"vocab_size": 250_002 // 7}), True)
    placements = {name: x.sharding.spec for name, x in partition.named_leaves(placed(nnx.state(encoder), mesh_of(8)))}
    specs = {re.sub(r"\.\d+\.", ".", name): spec for name, spec in placements.items()}
    assert specs["embeddings.token_embedding.embedding"] == PartitionSpec(None, "fsdp")
    assert specs["embeddings.position_embedding.embedding"] == PartitionSpec()
    assert specs["encoder.layers.mlp.fc1.weight"] == PartitionSpec("fsdp")


def test_the_summary_says_what_every_rule_took(sdxl):
    mesh = mesh_of(8)
    lines = partition.summary(placed(sdxl, mesh), mesh).splitlines()
    first = re.fullmatch(
        r"frozen parameters over fsdp=8: ([\d,.]+) MB sharded, ([\d,.]+) MB replicated; .* a chip", lines[0]
    )
    sharded, whole = (float(number.replace(",", "")) for number in first.groups())
    assert sharded + whole == pytest.approx(5134.9, abs=0.2) and sharded > 4900
    assert any(re.match(r"  kernel.*: \d+ split on axis -2, ", line) for line in lines)
    assert any(re.match(r"  weight.*: \d+ split on axis -2, ", line) for line in lines)
    assert any(re.match(r"  bias\|scale: \d+ whole, ", line) for line in lines)


def test_a_weight_in_8_bits_goes_by_the_name_of_the_weight():
    precision = dict(dtype=jnp.float32, param_dtype=jnp.float32)
    model = nnx.Dict(a=layers.Linear(8, 4, **precision), b=layers.Conv(8, 4, **precision))
    before, after = (dict(partition.named_leaves(nnx.state(m))) for m in (model, quantise(model, "int8")))
    assert {name: x.shape for name, x in before.items()}.items() <= {name: x.shape for name, x in after.items()}.items()
    assert all(partition.rule_of(name) for name in after) and after["a.weight"].dtype == jnp.int8


def test_what_no_rule_covers_is_named():
    tree = {"mid_block": {"strange": jnp.zeros(3)}}
    with pytest.raises(PeaError, match=r"mid_block\.strange: no rule says how"):
        placed(tree, mesh_of(2))


def test_what_cannot_be_split_is_named():
    tree = {"conv": {"kernel": jax.ShapeDtypeStruct((3, 3, 1001, 1001), jnp.float32)}}
    with pytest.raises(PeaError, match=r"conv\.kernel \[3, 3, 1001, 1001\]: config.mesh.fsdp=2 divides none"):
        placed(tree, mesh_of(2))


def test_whole_on_purpose():
    rules = (partition.Rule("conv_in.kernel"), *partition.RULES)
    kernels = [
        partition.frozen_sharding(mesh_of(2), name, (4096, 1024), jnp.float32, rules)
        for name in ("conv_in.kernel", "other.kernel")
    ]
    assert [kernel.spec for kernel in kernels] == [PartitionSpec(), PartitionSpec("fsdp")]
