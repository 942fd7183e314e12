"""Every published layout of the adapter, as a PyTorch class writes it, comes in with the same outputs and bits."""

import pathlib

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pea_jax.adapter import PEAdapter
from pea_jax.errors import PeaError
from pea_jax.weights.torch_names import to_torch_names
from tests.torch_oracle import randomised, relative_error

Linear, gelu = torch.nn.Linear, torch.nn.functional.gelu
STATES = np.random.default_rng(0).normal(size=(3, 5, 12)).astype(np.float32)


class Oldest(torch.nn.Module):
    def __init__(self, i: int = 12, h: int = 16, pooled: int = 20, out: int = 24):
        super().__init__()
        self.layernorm = torch.nn.LayerNorm(i)
        self.fc1, self.fc2, self.fc3 = Linear(i, h), Linear(h, pooled), Linear(pooled, out)

    def forward(self, x):
        y = self.fc2(gelu(self.fc1(self.layernorm(x))))
        return self.fc3(gelu(y)), y.mean(1)


class Projector(torch.nn.Module):
    """`num_linears` without bias; with `out` one more, to the tokens."""

    def __init__(self, num_linears: int, last: int = 20, out: int | None = 24, i: int = 12, h: int = 16):
        super().__init__()
        widths = [i, *[h] * (num_linears - 1), last]
        linears = [Linear(a, b, bias=False) for a, b in zip(widths, widths[1:], strict=False)]
        layers = [layer for linear in linears for layer in (linear, torch.nn.GELU())][:-1]
        self.layernorm, self.projector = torch.nn.LayerNorm(i), torch.nn.Sequential(*layers)
        self.fc = None if out is None else Linear(last, out)

    def forward(self, x):
        y = self.projector(self.layernorm(x))
        return (y, None) if self.fc is None else (self.fc(gelu(y)), y.mean(1))


LAYOUTS = {
    "oldest": Oldest,
    "three linears": lambda: Projector(3),
    "four linears": lambda: Projector(4),
    "SD 1.5, three linears": lambda: Projector(3, out=None),
    "SD 1.5, five linears": lambda: Projector(5, out=None),
}
SIZES = {  # parameters, as published or as the files' sizes tell
    4_987_136: lambda: Oldest(1024, 1024, 1280, 2048),
    6_033_408: lambda: Projector(3, 1280, 2048, 1024, 1024),
    11_538_432: lambda: Projector(3, 1280, 2048, 1024, 2048),
    15_732_736: lambda: Projector(4, 1280, 2048, 1024, 2048),
    7_866_368: lambda: Projector(3, 768, None, 1024, 2048),
    33_818_624: lambda: Projector(5, 768, None, 1024, 3072),
}


@pytest.fixture(params=LAYOUTS)
def published(request: pytest.FixtureRequest) -> torch.nn.Module:
    return randomised(LAYOUTS[request.param]())


def half(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.half() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_outputs_are_those_of_the_published_class(published: torch.nn.Module, tmp_path: pathlib.Path, suffix: str):
    path = tmp_path / f"pytorch_model{suffix}"
    (torch.save if suffix == ".bin" else save_file)(published.state_dict(), path)
    adapter = PEAdapter.from_published(path)
    tokens, pooled = jax.jit(adapter)(STATES)
    with torch.no_grad():
        expected_tokens, expected_pooled = published(torch.from_numpy(STATES))
    assert relative_error(tokens, expected_tokens) <= 1e-4
    assert (pooled is None) == (expected_pooled is None)
    if pooled is not None:
        assert relative_error(pooled, expected_pooled) <= 1e-4


def test_round_trip_is_bit_equal(published: torch.nn.Module, tmp_path: pathlib.Path):
    """Half precision in a pickled file, an adapter directory, read again: no bit is lost."""
    torch.save(half(published), tmp_path / "pytorch_model.bin")
    first = PEAdapter.from_published(tmp_path / "pytorch_model.bin")
    first.save_pretrained(tmp_path / "adapter", {}, "")
    again = PEAdapter.from_pretrained(tmp_path / "adapter")
    assert again.dims == first.dims
    tensors = to_torch_names(again)
    saved = load_file(tmp_path / "adapter" / "adapter.safetensors")
    renamed = {"fc1": "projector.0", "fc2": "projector.2", "fc3": "fc"}
    assert len(tensors) == len(saved) == len(published.state_dict())
    for name, tensor in half(published).items():
        layer, _, kind = name.rpartition(".")
        current = f"{renamed.get(layer, layer) if isinstance(published, Oldest) else layer}.{kind}"
        np.testing.assert_array_equal(tensors[current].astype(np.float16), tensor.numpy())
        np.testing.assert_array_equal(saved[current].half().numpy(), tensor.numpy())


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "oldest"])
def test_the_published_class_takes_what_is_written(layout: str, tmp_path: pathlib.Path):
    torch.save(LAYOUTS[layout]().state_dict(), tmp_path / "a.bin")
    PEAdapter.from_published(tmp_path / "a.bin").save_pretrained(tmp_path / "adapter", {}, "")
    LAYOUTS[layout]().load_state_dict(load_file(tmp_path / "adapter" / "adapter.safetensors"), strict=True)


@pytest.mark.parametrize("parameters", SIZES)
def test_sizes_are_the_published_ones(parameters: int):
    with torch.device("meta"):
        module = SIZES[parameters]()
    assert sum(tensor.numel() for tensor in module.state_dict().values()) == parameters


@pytest.mark.parametrize("lost", ["layernorm.weight", "fc.bias", "projector.2.weight", "projector.0.weight"])
def test_a_lost_tensor_is_noticed(tmp_path: pathlib.Path, lost: str):
    tensors = Projector(3).state_dict()
    del tensors[lost]
    torch.save(tensors, tmp_path / "a.bin")
    with pytest.raises(PeaError, match=rf"{tmp_path / 'a.bin'}.*({lost}|not an adapter)"):
        PEAdapter.from_published(tmp_path / "a.bin")


def test_a_layout_with_biases_in_one_linear_only_is_refused(tmp_path: pathlib.Path):
    torch.save(Projector(3).state_dict() | {"projector.2.bias": torch.zeros(16)}, tmp_path / "a.bin")
    with pytest.raises(PeaError, match=r"unexpected \(projector.2.bias\)"):
        PEAdapter.from_published(tmp_path / "a.bin")
