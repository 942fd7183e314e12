"""How a PyTorch module becomes the oracle of one of ours."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
import torch
from flax import nnx

from pea_jax.weights import fill

Module = TypeVar("Module", bound=torch.nn.Module)
Model = TypeVar("Model", bound=nnx.Module)


def randomised(module: Module, seed: int = 0) -> Module:
    """`module` in evaluation mode, every parameter random, those of the norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
    return module.eval()


def filled(model: Model, oracle: torch.nn.Module) -> Model:
    """Our `model` with the weights of `oracle`."""
    return fill(model, {name: value.numpy() for name, value in oracle.state_dict().items()}, source="oracle")


def compiled(model: nnx.Module, method: str = "__call__") -> Callable[..., Any]:
    """One program that is given the parameters: as constants of it they would be compiled, too."""
    graphdef, params = nnx.split(model)
    call = lambda params, *given, **named: getattr(nnx.merge(graphdef, params), method)(*given, **named)  # noqa: E731
    return functools.partial(jax.jit(call), params)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).numpy()


def assert_same_pictures(pictures: np.ndarray, expected: np.ndarray) -> None:
    """Whole levels, 0 to 255, are what a pipeline of diffusers gives in [0, 1]."""
    assert expected.std() > 0.05, "a picture of one colour proves nothing"
    # Rounding to whole levels hides half of one; what is left is 1e-3 of the range.
    assert np.abs(pictures - 255 * expected).max() < 0.5 + 255e-3


def relative_error(ours: Any, oracle: Any) -> float:
    """Largest absolute difference in units of the oracle's standard deviation; NaN is never small."""
    ours, oracle = np.asarray(ours, np.float64), np.asarray(oracle, np.float64)
    assert ours.shape == oracle.shape, f"{ours.shape} instead of {oracle.shape}"
    return float(np.abs(ours - oracle).max() / oracle.std())
