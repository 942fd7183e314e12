"""Frozen kernels in 8 bits, with one scale for each output channel; the numerics are qwix's.

Nothing here is differentiated but the activations. A kernel is widened where it is used, and again where the gradient
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

Model = TypeVar("Model", bound=nnx.Module)

QTYPES = ("int8", "float8_e4m3fn")
KEPT = ("conv_in", "conv_out")  # few parameters, and all that is seen and said goes through them


def quantise(model: Model, qtype: str, *, activations: bool = False) -> Model:
    """`model` with its kernels in 8 bits, each where it was; the old ones may be freed.

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
        kernel = getattr(module, "kernel", None)
        if kernel is not None and path[0] not in KEPT:
            module.kernel = nnx.Param(_quantised(kernel.get_value(), qtype))  # type: ignore[attr-defined]
            module.quantised_activations = activations  # type: ignore[attr-defined]
    return model


def apply_kernel(
    product: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, kernel: Any, dtype: jax.typing.DTypeLike
) -> jax.Array:
    """`product(x, kernel)`, linear in `x`, for a kernel that is an array or one in 8 bits."""
    if isinstance(kernel, jax.Array):
        return product(x, kernel.astype(dtype))
    return _through(lambda x, kernel: product(x, _widened(kernel, x, dtype)), product, x, kernel, dtype)


def apply_matrix(x: jax.Array, kernel: Any, dtype: jax.typing.DTypeLike, quantised_activations: bool) -> jax.Array:
    """`x @ kernel` `[..., in]`, `[in, out]`, likewise; in 8 bits if `quantised_activations`."""
    if isinstance(kernel, jax.Array) or not quantised_activations:
        return apply_kernel(jnp.matmul, x, kernel, dtype)
    return _through(lambda x, kernel: _matmul_in_8_bits(x, kernel).astype(dtype), jnp.matmul, x, kernel, dtype)


def _through(forward: Callable, product: Callable, x: jax.Array, kernel: Any, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`forward(x, kernel)` with the gradient of `product` with the widened kernel, which is not kept for it."""
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    apply = jax.custom_vjp(forward)

    def backward(kernel: Any, gradient: jax.Array) -> tuple[jax.Array, None]:
        transposed = jax.linear_transpose(lambda x: product(x, _widened(kernel, gradient, dtype)), shape)
        return (*transposed(gradient), None)

    apply.defvjp(lambda x, kernel: (forward(x, kernel), kernel), backward)
    return apply(x, kernel)


def _widened(kernel: Any, used_with: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    # Else the compiler would widen once for both passes of the UNet and the gradient, and keep it in between.
    kernel, _ = jax.lax.optimization_barrier((kernel, used_with))
    return _qwix().dequantize(kernel).astype(dtype)


def _matmul_in_8_bits(x: jax.Array, kernel: Any) -> jax.Array:
    rounded = _qwix().quantize(x.astype(jnp.float32), kernel.qtype, channelwise_axes=tuple(range(x.ndim - 1)))
    return _qwix().dot_general(rounded, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _quantised(kernel: Any, qtype: str) -> Any:
    rounded = _rounding(qtype, kernel.sharding)
    return rounded.eval_shape(kernel) if isinstance(kernel, jax.ShapeDtypeStruct) else rounded(kernel)


@functools.cache
def _rounding(qtype: str, place: Any) -> Any:
    """What rounds kernels that lie at `place`; the rounded one lies there too, its scales whole on every device."""
    whole = NamedSharding(place.mesh, PartitionSpec()) if isinstance(place, NamedSharding) else place
    places = _qwix().QArray(qvalue=place, scale=whole, qtype=jnp.dtype(qtype))

    def rounded(kernel: jax.Array) -> Any:
        return _qwix().quantize(kernel.astype(jnp.float32), jnp.dtype(qtype), channelwise_axes=(kernel.ndim - 1,))

    return jax.jit(rounded, out_shardings=places)


@functools.cache
def _qwix() -> Any:
    try:
        import qwix
    except ImportError as error:
        raise PeaError("config.quantisation.weights needs qwix; pip install 'pea_jax[quantisation]'") from error
    return qwix
