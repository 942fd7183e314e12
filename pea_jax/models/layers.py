"""The layers that every architecture here is built of.

The numerical truth is PyTorch: exact erf GELU, normalisation statistics in fp32. Parameters start at zero (scales at
one), since they are always filled from a checkpoint.

`**precision` throughout stands for `dtype` (computation) and `param_dtype` (storage).
"""

import contextvars
import functools
import math
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.models.quantisation import apply_matrix, apply_weight, linear_map

Model = TypeVar("Model", bound=nnx.Module)
_without_values = contextvars.ContextVar("_without_values", default=False)


def abstract(build: Callable[[], Model]) -> Model:
    """What `nnx.eval_shape(build)` gives, in a third of the time: how the values are made is not traced.

    Flax's own layers must be given `ZEROS` and `ONES` as their initializers.
    """
    token = _without_values.set(True)
    try:
        return build()
    finally:
        _without_values.reset(token)


def constant(shape: tuple[int, ...], dtype: jax.typing.DTypeLike, value: float = 0.0) -> Any:
    """A parameter's value to start with; within `abstract` its shape and dtype alone."""
    if not _without_values.get():
        return jnp.full(shape, value, dtype)
    if any(operator.index(size) < 0 for size in shape):
        raise ValueError(f"a parameter of shape {shape}")
    return jax.ShapeDtypeStruct(shape, dtype)


def alike(count: int, build: Callable[[], Model]) -> list[Model]:
    """`count` modules as `build` makes them.

    Within `abstract` it makes one, and the rest are copies, which take Flax a tenth of the time.
    """
    if not (_without_values.get() and count):
        return [build() for _ in range(count)]
    graphdef, state = nnx.split(build())
    return [nnx.merge(graphdef, state, copy=True) for _ in range(count)]


class NoRandomness:
    """In place of `nnx.Rngs`: drawing keys that constants ignore takes `nnx.eval_shape` of SDXL from 1 s to 30 s."""

    def params(self) -> None:
        return None


NO_RANDOMNESS: Any = NoRandomness()


def _initializer(value: float) -> Any:
    return lambda key, shape, dtype: constant(shape, dtype, value)


ZEROS, ONES = _initializer(0.0), _initializer(1.0)
embedding = functools.partial(nnx.Embed, embedding_init=ZEROS, rngs=NO_RANDOMNESS)
rms_norm = functools.partial(nnx.RMSNorm, scale_init=ONES, rngs=NO_RANDOMNESS)


class Linear(nnx.Module):
    """`torch.nn.Linear`; weight `[out, in]`, as PyTorch stores it, so that loading moves nothing."""

    quantised_activations = False

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        dtype: jax.typing.DTypeLike,
        param_dtype: jax.typing.DTypeLike,
    ):
        self.weight = nnx.Param(constant((out_features, in_features), param_dtype))
        self.bias = nnx.Param(constant((out_features,), param_dtype)) if use_bias else None
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        y = apply_matrix(x.astype(self.dtype), self.weight.get_value(), self.dtype, self.quantised_activations)
        return y if self.bias is None else y + jnp.expand_dims(self.bias.astype(self.dtype), range(y.ndim - 1))


def layer_norm(features: int, *, eps: float = 1e-5, **precision: Any) -> nnx.LayerNorm:
    """`torch.nn.LayerNorm` over the last axis."""
    starts = dict(scale_init=ONES, bias_init=ZEROS, rngs=NO_RANDOMNESS)
    return nnx.LayerNorm(features, epsilon=eps, use_fast_variance=False, **starts, **precision)


class PointwiseConv(nnx.Module):
    """`torch.nn.Conv2d` with a 1x1 kernel; its weight `[out, in, 1, 1]`, as PyTorch stores it, is read as a matrix.

    A matrix product is 1.4 times as fast as the convolution in XLA's CPU backend.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dtype: jax.typing.DTypeLike,
        param_dtype: jax.typing.DTypeLike,
    ):
        self.weight = nnx.Param(constant((out_features, in_features, 1, 1), param_dtype))
        self.bias = nnx.Param(constant((out_features,), param_dtype))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        y = apply_weight(_pointwise, x.astype(self.dtype), self.weight.get_value(), self.dtype)
        return y + jnp.expand_dims(self.bias.astype(self.dtype), range(y.ndim - 1))


def _pointwise(x: jax.Array, weight: jax.Array) -> jax.Array:
    return linear_map(x, weight.reshape(weight.shape[:2]))


class Conv(nnx.Module):
    """`torch.nn.Conv2d` with a 3x3 kernel `[3, 3, in, out]` on `[B, H, W, in]`; `padding` is (before, after)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        stride: int = 1,
        padding: tuple[int, int] = (1, 1),
        dtype: jax.typing.DTypeLike,
        param_dtype: jax.typing.DTypeLike,
    ):
        self.kernel = nnx.Param(constant((3, 3, in_features, out_features), param_dtype))
        self.bias = nnx.Param(constant((out_features,), param_dtype))
        self.stride, self.padding, self.dtype = stride, padding, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        y = apply_weight(self._convolve, x.astype(self.dtype), self.kernel.get_value(), self.dtype)
        return y + self.bias.astype(self.dtype)[None, None, None]

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        height, width = ((size + sum(self.padding) - 3) // self.stride + 1 for size in x.shape[1:3])
        if max(height, width) <= 2:
            return _convolve_to_few_pixels(x, kernel, height, width, self.stride, self.padding)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=(self.padding, self.padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def _convolve_to_few_pixels(
    x: jax.Array, kernel: jax.Array, height: int, width: int, stride: int, padding: tuple[int, int]
) -> jax.Array:
    """The 3x3 convolution to `height` x `width` pixels, as a product of their neighbourhoods with the whole kernel.

    Where a picture is smaller than its kernel (in the gradient also where a strided one becomes so), XLA exchanges the
    two, and that convolution its CPU backend runs 40 times as slowly.
    """
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    rows, columns = (stride * (size - 1) + 1 for size in (height, width))
    shifted = [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(3) for j in range(3)]
    neighbourhoods = jnp.concatenate(shifted, axis=-1).reshape(len(x) * height * width, -1)
    return (neighbourhoods @ kernel.reshape(-1, kernel.shape[-1])).reshape(len(x), height, width, -1)


class GroupNorm(nnx.Module):
    """`torch.nn.GroupNorm` over the last axis of `[B, H, W, C]`, statistics in fp32.

    Sums are taken per channel and only then joined into groups, so that the picture is never reshaped. Within a channel
    the values are shifted by one of them, and channels are joined by Chan, Golub and LeVeque's formula (1983): a mean
    much larger than the deviation costs no digits.
    """

    def __init__(
        self,
        features: int,
        num_groups: int,
        *,
        eps: float,
        dtype: jax.typing.DTypeLike,
        param_dtype: jax.typing.DTypeLike,
    ):
        self.scale = nnx.Param(constant((features,), param_dtype, 1.0))
        self.bias = nnx.Param(constant((features,), param_dtype))
        self.num_groups, self.eps, self.dtype = num_groups, eps, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        mean, variance = self._group_moments(x.astype(jnp.float32))
        features_per_group = x.shape[-1] // self.num_groups
        inverse_deviation = jnp.repeat(jax.lax.rsqrt(variance + self.eps), features_per_group, axis=-1)
        gain = inverse_deviation * self.scale[None].astype(jnp.float32)
        offset = self.bias[None].astype(jnp.float32) - jnp.repeat(mean, features_per_group, axis=-1) * gain
        return (x * gain[:, None, None] + offset[:, None, None]).astype(self.dtype)

    def _group_moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and variance `[B, num_groups]` of `[B, H, W, C]`."""
        # Neither moment depends on the shift, so its gradient is exactly zero.
        shift = jax.lax.stop_gradient(x[:, :1, :1])
        shifted = x - shift
        mean = shifted.mean((1, 2))
        variance = jnp.square(shifted).mean((1, 2)) - jnp.square(mean)
        mean = (mean + shift[:, 0, 0]).reshape(len(x), self.num_groups, -1)
        return mean.mean(-1), variance.reshape(mean.shape).mean(-1) + mean.var(-1)


def timestep_embedding(
    timesteps: jax.Array, features: int, *, flip_sin_to_cos: bool = True, freq_shift: float = 0.0
) -> jax.Array:
    """Sinusoids `[B, features]` in fp32 of `timesteps` `[B]` (diffusers `get_timestep_embedding`)."""
    half = features // 2
    frequencies = jnp.exp(-math.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / (half - freq_shift))
    angles = timesteps.astype(jnp.float32)[:, None] * frequencies[None]
    waves = (jnp.cos(angles), jnp.sin(angles)) if flip_sin_to_cos else (jnp.sin(angles), jnp.cos(angles))
    return jnp.pad(jnp.concatenate(waves, axis=-1), ((0, 0), (0, features % 2)))


class TimestepEmbedding(nnx.Module):
    """The two-layer network behind every sinusoidal embedding of the UNet; `[B, in]` to `[B, out]`.

    With `cond_features` it takes a second input `[B, cond_features]`, which counts as nothing if left out.
    """

    def __init__(self, in_features: int, out_features: int, cond_features: int | None = None, **precision: Any):
        told = None if cond_features is None else Linear(cond_features, in_features, use_bias=False, **precision)
        self.cond_proj = told
        self.linear_1 = Linear(in_features, out_features, **precision)
        self.linear_2 = Linear(out_features, out_features, **precision)

    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        x = x if condition is None or self.cond_proj is None else x + self.cond_proj(condition)
        return self.linear_2(jax.nn.silu(self.linear_1(x)))
