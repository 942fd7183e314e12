"""The Inception V3 that FID is measured with: TensorFlow's of December 2015, its weights as PyTorch ports keep them.

Not torchvision's: average pools do not count what lies outside of the picture, and the last block has a max pool.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from pea_jax.models import layers

SIDE, WIDTH = 299, 2048  # of the pictures, of the features
EPSILON = 1e-3


class Layer(NamedTuple):
    """A convolution; it keeps the size of its input if it is `padded`."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


# What follows on what: a convolution, a pool by its name, or convolutions side by side.
Step = Layer | str | tuple[Layer, ...]
Branches = tuple[tuple[Step, ...], ...]

STEM: tuple[Layer | str, ...] = (
    Layer("Conv2d_1a_3x3", 32, (3, 3), stride=2, padded=False),
    Layer("Conv2d_2a_3x3", 32, (3, 3), padded=False),
    Layer("Conv2d_2b_3x3", 64, (3, 3)),
    "max, stride 2",
    Layer("Conv2d_3b_1x1", 80),
    Layer("Conv2d_4a_3x3", 192, (3, 3), padded=False),
    "max, stride 2",
)


def _a(pooled: int) -> Branches:
    return (
        (Layer("branch1x1", 64),),
        (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5))),
        (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), Layer("branch3x3dbl_3", 96, (3, 3))),
        ("average", Layer("branch_pool", pooled)),
    )


def _b() -> Branches:
    last = Layer("branch3x3dbl_3", 96, (3, 3), stride=2, padded=False)
    return (
        (Layer("branch3x3", 384, (3, 3), stride=2, padded=False),),
        (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), last),
        ("max, stride 2",),
    )


def _c(width: int) -> Branches:
    double = [(width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7))]
    return (
        (Layer("branch1x1", 192),),
        (Layer("branch7x7_1", width), Layer("branch7x7_2", width, (1, 7)), Layer("branch7x7_3", 192, (7, 1))),
        (Layer("branch7x7dbl_1", width), *(Layer(f"branch7x7dbl_{i}", *each) for i, each in enumerate(double, 2))),
        ("average", Layer("branch_pool", 192)),
    )


def _d() -> Branches:
    smaller = dict(kernel=(3, 3), stride=2, padded=False)
    wide = (Layer("branch7x7x3_1", 192), Layer("branch7x7x3_2", 192, (1, 7)), Layer("branch7x7x3_3", 192, (7, 1)))
    return (
        (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, **smaller)),  # type: ignore[arg-type]
        (*wide, Layer("branch7x7x3_4", 192, **smaller)),  # type: ignore[arg-type]
        ("max, stride 2",),
    )


def _e(pool: str) -> Branches:
    def both(name: str) -> tuple[Layer, ...]:
        return Layer(f"{name}a", 384, (1, 3)), Layer(f"{name}b", 384, (3, 1))

    return (
        (Layer("branch1x1", 320),),
        (Layer("branch3x3_1", 384), both("branch3x3_2")),
        (Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, (3, 3)), both("branch3x3dbl_3")),
        (pool, Layer("branch_pool", 192)),
    )


BLOCKS: dict[str, Branches] = {
    "Mixed_5b": _a(32), "Mixed_5c": _a(64), "Mixed_5d": _a(64),
    "Mixed_6a": _b(), "Mixed_6b": _c(128), "Mixed_6c": _c(160), "Mixed_6d": _c(160), "Mixed_6e": _c(192),
    "Mixed_7a": _d(), "Mixed_7b": _e("average"), "Mixed_7c": _e("max"),
}  # fmt: skip


class Kernel(nnx.Module):
    """What a convolution has in the files: a weight, by itself."""

    def __init__(self, *shape: int):
        self.kernel = nnx.Param(layers.constant(shape, jnp.float32))


class BatchNorm(nnx.Module):
    """`torch.nn.BatchNorm2d` with the statistics of its training."""

    def __init__(self, features: int):
        shape, dtype = (features,), jnp.float32
        self.scale, self.running_var = (nnx.Param(layers.constant(shape, dtype, 1.0)) for _ in range(2))
        self.bias, self.running_mean = (nnx.Param(layers.constant(shape, dtype)) for _ in range(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        gain = self.scale[...] * jax.lax.rsqrt(self.running_var[...] + EPSILON)
        offset = self.bias[...] - self.running_mean[...] * gain
        return x * gain[None, None, None] + offset[None, None, None]


class BasicConv2d(nnx.Module):
    """Convolution without bias, batch norm, ReLU; `[B, H, W, C]`."""

    def __init__(self, inputs: int, layer: Layer):
        self.conv, self.bn = Kernel(*layer.kernel, inputs, layer.features), BatchNorm(layer.features)
        self.stride, self.padding = layer.stride, tuple((side // 2 * layer.padded,) * 2 for side in layer.kernel)

    def __call__(self, x: jax.Array) -> jax.Array:
        strides, axes = (self.stride,) * 2, ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, self.conv.kernel[...], strides, self.padding, dimension_numbers=axes)
        return jax.nn.relu(self.bn(x))


class Block(nnx.Module):
    """Branches from one input, their ends side by side; layers are attributes, by their names."""

    def __init__(self, inputs: int, branches: Branches):
        self.branches, self.features = branches, 0
        for branch in branches:
            width = inputs
            for step in branch:
                layers = (step,) if isinstance(step, Layer) else () if isinstance(step, str) else step
                for layer in layers:
                    setattr(self, layer.name, BasicConv2d(width, layer))
                width = sum(layer.features for layer in layers) or width
            self.features += width

    def __call__(self, x: jax.Array) -> jax.Array:
        return _joined([functools.reduce(self._take, branch, x) for branch in self.branches])

    def _take(self, x: jax.Array, step: Step) -> jax.Array:
        if isinstance(step, str):
            return POOLS[step](x)
        if isinstance(step, Layer):
            return getattr(self, step.name)(x)
        return _joined([getattr(self, layer.name)(x) for layer in step])


class Inception(nnx.Module):
    """`[B, H, W, 3]`, from -1 to 1, to the features `[B, 2048]` before the classifier."""

    def __init__(self) -> None:
        width = 3
        for layer in STEM:
            if isinstance(layer, Layer):
                setattr(self, layer.name, BasicConv2d(width, layer))
                width = layer.features
        for name, branches in BLOCKS.items():
            block = Block(width, branches)
            setattr(self, name, block)
            width = block.features

    def __call__(self, pixels: jax.Array) -> jax.Array:
        x = pixels
        for step in STEM:
            x = POOLS[step](x) if isinstance(step, str) else getattr(self, step.name)(x)
        for name in BLOCKS:
            x = getattr(self, name)(x)
        return x.mean((1, 2))


def _joined(parts: list[jax.Array]) -> jax.Array:
    return jnp.concatenate(parts, axis=-1)


def _average(x: jax.Array) -> jax.Array:
    """Of each pixel and those beside it that are in the picture."""
    total = functools.partial(
        jax.lax.reduce_window,
        init_value=0.0,
        computation=jax.lax.add,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 1, 1, 1),
        padding="SAME",
    )
    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def _max(x: jax.Array, *, stride: int, padding: str) -> jax.Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


POOLS: dict[str, Callable[[Any], jax.Array]] = {
    "average": _average,
    "max": functools.partial(_max, stride=1, padding="SAME"),
    "max, stride 2": functools.partial(_max, stride=2, padding="VALID"),
}
