"""Names, layouts, placement and errors of parameter trees."""

import os
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import save_file

from pea_jax.errors import PeaError
from pea_jax.models import layers
from pea_jax.weights import fill, to_torch_names, torch_names
from pea_jax.weights.safetensors_files import open_safetensors
from tests.torch_oracle import randomised


class Ours(nnx.Module):
    """One parameter of every kind."""

    def __init__(self, param_dtype=jnp.float32):
        precision = dict(dtype=jnp.float32, param_dtype=param_dtype)
        self.embed = layers.embedding(11, 6, **precision)
        self.blocks = nnx.List(
            [layers.Linear(6, 8, **precision), None, layers.Linear(8, 4, use_bias=False, **precision)]
        )
        self.conv = layers.Conv(4, 10, **precision)
        self.point = layers.PointwiseConv(10, 2, **precision)
        self.norm = layers.GroupNorm(2, 1, eps=1e-5, **precision)
        self.logit_scale = nnx.Param(jnp.zeros(3, param_dtype))


class Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(11, 6)
        self.blocks = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.Linear(8, 4, bias=False))
        self.conv, self.point, self.norm = (
            torch.nn.Conv2d(4, 10, 3),
            torch.nn.Conv2d(10, 2, 1),
            torch.nn.GroupNorm(1, 2),
        )
        self.logit_scale = torch.nn.Parameter(torch.zeros(3))


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in randomised(Theirs()).state_dict().items()}


def abstract(param_dtype=jnp.float32) -> Ours:
    return nnx.eval_shape(lambda: Ours(param_dtype))


def test_values_land_where_pytorch_has_them(tensors):
    ours, theirs = fill(abstract(), tensors, source="test"), randomised(Theirs())
    np.testing.assert_array_equal(ours.embed.embedding[...], theirs.embed.weight.detach())
    np.testing.assert_array_equal(ours.blocks[2].weight[3, 5], theirs.blocks[2].weight[3, 5].detach())
    np.testing.assert_array_equal(ours.conv.kernel[0, 2, 3, 7], theirs.conv.weight[7, 3, 0, 2].detach())
    np.testing.assert_array_equal(ours.point.weight[1, 9, 0, 0], theirs.point.weight[1, 9, 0, 0].detach())
    np.testing.assert_array_equal(ours.norm.scale[...], theirs.norm.weight.detach())
    np.testing.assert_array_equal(ours.logit_scale[...], theirs.logit_scale.detach())


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_round_trip_is_bit_equal(tensors, dtype):
    stored = {name: value.astype(dtype) for name, value in tensors.items()}
    back = to_torch_names(fill(abstract(dtype), stored, source="test"))
    assert back.keys() == stored.keys()
    for name, value in stored.items():
        assert back[name].dtype == dtype and back[name].flags.c_contiguous
        assert back[name].tobytes() == value.tobytes()


def test_of_a_state_as_of_its_module(tensors):
    model = fill(abstract(), tensors, source="test")
    assert to_torch_names(nnx.state(model)).keys() == to_torch_names(model).keys() == tensors.keys()


def test_cast_to_the_dtype_of_the_model(tensors):
    model = fill(abstract(jnp.bfloat16), tensors, source="test")
    np.testing.assert_array_equal(model.norm.scale[...], tensors["norm.weight"].astype(jnp.bfloat16))


@pytest.mark.parametrize("worth_a_program", [0, torch_names.WORTH_A_PROGRAM], ids=["on the device", "on the host"])
@pytest.mark.parametrize("stored", [np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_casts(stored, dtype, worth_a_program, monkeypatch):
    """NumPy's cast is the truth; the range holds numbers that are subnormal or too large for half precision."""
    monkeypatch.setattr(torch_names, "WORTH_A_PROGRAM", worth_a_program)
    weight = (10.0 ** np.random.default_rng(0).uniform(-9, 6, (300, 5))).astype(stored)
    model = nnx.eval_shape(lambda: layers.Linear(5, 300, use_bias=False, dtype=dtype, param_dtype=dtype))
    model = fill(model, {"weight": weight}, source="test")
    np.testing.assert_array_equal(model.weight[...], weight.astype(dtype))


def test_later_changes_of_the_source_do_not_reach_the_model(tensors):
    model = fill(abstract(), tensors, source="test")
    before = {name: value.copy() for name, value in to_torch_names(model).items()}
    for value in tensors.values():
        value[...] = 0
    for name, value in to_torch_names(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_nor_where_nothing_is_converted():
    source = {"weight": torch.ones(1, 64).numpy()}
    model = nnx.eval_shape(lambda: layers.Linear(64, 1, use_bias=False, dtype=jnp.float32, param_dtype=jnp.float32))
    model = fill(model, source, source="test")
    source["weight"][...] = 0
    np.testing.assert_array_equal(model.weight[...], np.ones((1, 64)))


def test_what_is_read_into_the_same_memory_is_kept_apart(tmp_path):
    """Many large tensors, cast on the device by several threads."""
    shape, count, precision = (1300, 1000), 20, dict(use_bias=False, dtype=jnp.float32, param_dtype=jnp.float32)
    stored = {f"{i}.weight": np.full(shape, i, np.float16) for i in range(count)}
    assert count * stored["0.weight"].nbytes > torch_names.WORTH_A_PROGRAM
    save_file(stored, tmp_path / "tensors.safetensors")
    model = layers.abstract(lambda: nnx.List([layers.Linear(*shape[::-1], **precision) for _ in range(count)]))
    model = fill(model, open_safetensors(tmp_path / "tensors.safetensors"), source="test")
    for i, layer in enumerate(model):
        np.testing.assert_array_equal(layer.weight[...], np.full(shape, i))


def test_all_errors_at_once_on_one_line(tensors):
    del tensors["norm.bias"], tensors["conv.weight"]
    tensors["norm.extra"] = np.zeros(1, np.float32)
    tensors["embed.weight"] = tensors["embed.weight"].T
    tensors["logit_scale"] = np.zeros(3, np.int64)
    with pytest.raises(PeaError) as error:
        fill(abstract(), tensors, source="some/file.safetensors")
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "some/file.safetensors does not fit Ours",
        "2 missing (conv.weight, norm.bias)",
        "1 unexpected (norm.extra)",
        "embed.weight is [6, 11], must be [11, 6]",
        "logit_scale is int64, must be floating",
    ):
        assert part in message


def test_every_device_holds_its_part(tensors, tmp_path):
    """Four devices: read from a file, some split by a rule and the rest replicated, the parameters are the same."""
    save_file(tensors, tmp_path / "tensors.safetensors")
    script = """
        import pathlib, sys, jax
        from jax.sharding import AxisType, PartitionSpec
        from safetensors.numpy import load_file
        from pea_jax.weights.safetensors_files import open_safetensors
        from tests.weights.test_torch_names import abstract, fill, to_torch_names

        rules = {
            "blocks.0.weight": PartitionSpec("fsdp"),
            "blocks.2.weight": PartitionSpec(None, "fsdp"),
            "conv.kernel": PartitionSpec(None, None, "fsdp"),
        }
        mesh, path = jax.make_mesh((4,), ("fsdp",), axis_types=(AxisType.Auto,)), pathlib.Path(sys.argv[1])
        shapes = {}
        def partition(path, shape):
            shapes[path] = shape
            return rules.get(path, PartitionSpec())
        model = fill(abstract(), open_safetensors(path), source="test", mesh=mesh, partition=partition)
        assert shapes["conv.kernel"] == (3, 3, 4, 10) and len(shapes) == len(load_file(path))
        assert model.blocks[0].weight[...].sharding.spec == rules["blocks.0.weight"]
        assert model.blocks[2].weight[...].addressable_shards[3].data.shape == (4, 2)
        assert model.conv.kernel[...].addressable_shards[3].data.shape == (3, 3, 1, 10)
        assert model.conv.bias[...].sharding == jax.NamedSharding(mesh, PartitionSpec())
        ours = to_torch_names(model)
        assert all(ours[name].tobytes() == value.tobytes() for name, value in load_file(path).items())
    """
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "tensors.safetensors")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
