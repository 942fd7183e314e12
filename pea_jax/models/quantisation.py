"""Frozen weights in 8 bits, with one scale for each output channel; the numerics are qwix's.

Nothing here is differentiated but the activations. A weight is widened where it is used, and again where the gradient
needs it: what stays in memory between is 8 bits wide.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from pea_jax.errors import PeaError
from pea_jax.models.calls import not_before

Model = TypeVar("Model", bound=nnx.Module)

QTYPES = ("int8", "float8_e4m3fn")
OUTPUT_AXIS = {"weight": 0, "kernel": -1}  # of matrices, as PyTorch has them, and of 3x3 convolutions, as JAX has them
KEPT = ("conv_in", "conv_out")  # few parameters, and all that is seen and said goes through them


def quantise(model: Model, qtype: str, *, activations: bool = False) -> Model:
    """`model` with its matrices and kernels in 8 bits, each where it was; the old ones may be freed.

    Args:
      model: a UNet, its parameters filled or abstract.
      qtype: one of `QTYPES`.
      activations: linear layers round their input too, to 8 bits with a scale for each row, and multiply in 8 bits;
        gradients pass as if they had not.

    Raises:
      PeaError: another type, or the package that does it is not installed.
    """
    if qtype not in QTYPES:
        raise PeaError(f"config.quantisation.weights={qtype!r}: not known; choose from {', '.join(QTYPES)}")
    _qwix()
    for path, module in nnx.iter_modules(model):
        name = next((name for name in OUTPUT_AXIS if hasattr(module, name)), None)
        if name is not None and path[0] not in KEPT:
            weight = getattr(module, name).get_value()
            setattr(module, name, nnx.Param(_quantised(weight, qtype, OUTPUT_AXIS[name] % weight.ndim)))
            module.quantised_activations = activations  # type: ignore[attr-defined]
    return model


def linear_map(x: jax.Array, weight: jax.Array) -> jax.Array:
    """`[..., in]` by `[out, in]` to `[..., out]`."""
    return jax.lax.dot_general(x, weight, (((x.ndim - 1,), (1,)), ((), ())))


def apply_weight(
    product: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, weight: Any, dtype: jax.typing.DTypeLike
) -> jax.Array:
    """`product(x, weight)`, linear in `x`, for a weight that is an array or one in 8 bits."""
    if isinstance(weight, jax.Array):
        return product(x, weight.astype(dtype))
    return _through(lambda x, weight: product(x, _widened(weight, x, dtype)), product, x, weight, dtype)


def apply_matrix(x: jax.Array, weight: Any, dtype: jax.typing.DTypeLike, quantised_activations: bool) -> jax.Array:
    """`linear_map` likewise; in 8 bits if `quantised_activations`."""
    if isinstance(weight, jax.Array) or not quantised_activations:
        return apply_weight(linear_map, x, weight, dtype)
    return _through(lambda x, weight: _map_in_8_bits(x, weight).astype(dtype), linear_map, x, weight, dtype)


def _through(forward: Callable, product: Callable, x: jax.Array, weight: Any, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`forward(x, weight)` with the gradient of `product` with the widened weight, which is not kept for it."""
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    apply = jax.custom_vjp(forward)

    def backward(weight: Any, gradient: jax.Array) -> tuple[jax.Array, None]:
        transposed = jax.linear_transpose(lambda x: product(x, _widened(weight, gradient, dtype)), shape)
        return (*transposed(gradient), None)

    apply.defvjp(lambda x, weight: (forward(x, weight), weight), backward)
    return apply(x, weight)


def _widened(weight: Any, used_with: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    return _qwix().dequantize(not_before(weight, used_with)).astype(dtype)


def _map_in_8_bits(x: jax.Array, weight: Any) -> jax.Array:
    rounded = _qwix().quantize(x.astype(jnp.float32), weight.qtype, channelwise_axes=tuple(range(x.ndim - 1)))
    return _qwix().dot_general(rounded, weight, (((x.ndim - 1,), (1,)), ((), ())))


def _quantised(weight: Any, qtype: str, output_axis: int) -> Any:
    rounded = _rounding(qtype, output_axis, weight.sharding)
    return rounded.eval_shape(weight) if isinstance(weight, jax.ShapeDtypeStruct) else rounded(weight)


@functools.cache
def _rounding(qtype: str, output_axis: int, place: Any) -> Any:
    """What rounds weights that lie at `place`; the rounded one lies there too, its scales whole on every device."""
    whole = NamedSharding(place.mesh, PartitionSpec()) if isinstance(place, NamedSharding) else place
    places = _qwix().QArray(qvalue=place, scale=whole, qtype=jnp.dtype(qtype))

    def rounded(weight: jax.Array) -> Any:
        return _qwix().quantize(weight.astype(jnp.float32), jnp.dtype(qtype), channelwise_axes=(output_axis,))

    return jax.jit(rounded, out_shardings=places)


@functools.cache
def _qwix() -> Any:
    try:
        import qwix
    except ImportError as error:
        raise PeaError("config.quantisation.weights needs qwix; pip install 'pea_jax[quantisation]'") from error
    return qwix
