"""How a network calls its parts: directly, or with parameters gathered and activations computed again for each of them.

A UNet whose parameters are split over devices is never whole on one: each layer gathers its own, uses them and lets
them go, and so do the next pass through it and the backward pass.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, get_args

import jax
from flax import nnx

Remat = Literal["none", "block", "full"]
POLICIES: tuple[str, ...] = get_args(Remat)
# Operations that change nothing but the shape or the place of gathered parameters: were their results kept for the
# backward pass, so would be all parameters.
_CHEAP = frozenset(
    (
        "optimization_barrier",
        "sharding_constraint",
        "convert_element_type",
        "broadcast_in_dim",
        "reshape",
        "squeeze",
        "slice",
        "transpose",
    )
)


class Call(Protocol):
    """Calls `module` with `arrays` (trees of them, or None) and `static`, which is not traced."""

    def __call__(self, module: Any, *arrays: Any, **static: Any) -> Any: ...


def directly(module: Any, *arrays: Any, **static: Any) -> Any:
    return module(*arrays, **static)


class Calls(NamedTuple):
    """`layer` calls resnets, transformer blocks and what stands between them; `block` what is made of layers: `down_i`,
    `mid`, `up_i`."""

    layer: Call = directly
    block: Call = directly


DIRECT = Calls()


def make_calls(gather: Callable[[Any], Any] | None = None, remat: Remat = "none") -> Calls:
    """How a pass through the UNet calls its parts.

    Args:
      gather: makes a tree of parameters whole where it is used; None where they are whole already.
      remat: what is computed again in the backward pass, to save memory: `none`; `block`: every layer, of which the
        inputs alone are kept; `full`: every block, and in it again every layer.
    """
    policy = _all_but_parameters if remat == "none" else None
    layer = _computed if gather is None and remat == "none" else _again(gather, policy)
    return Calls(
        # One trace of several gatherings would give all of them one channel, for TPUs: whether what several layers
        # receive at the same time is then kept apart is not known.
        layer=_tracing_once(layer) if gather is None else _tracing_each_time(layer),
        block=_tracing_once(_again(None, None)) if remat == "full" else directly,
    )


def not_before(tree: Any, arrays: Any) -> Any:
    """`tree`, which the compiler cannot use before it has computed `arrays`.

    Else it would do once, and keep for as long as there is memory, what is done with `tree` in both passes of a step
    and in the gradient. XLA's compiler for CPUs does so all the same.
    """
    tree, _ = jax.lax.optimization_barrier((tree, jax.lax.stop_gradient(arrays)))
    return tree


class _Compute(Protocol):
    """A module's call, taken apart into what is traced and what is not."""

    def __call__(self, graphdef: Any, static: tuple[tuple[str, Any], ...], params: Any, *arrays: Any) -> Any: ...


def _tracing_each_time(compute: _Compute) -> Call:
    def call(module: Any, *arrays: Any, **static: Any) -> Any:
        graphdef, params = nnx.split(module)
        return compute(graphdef, tuple(sorted(static.items())), params, *arrays)

    return call


def _tracing_once(compute: _Compute) -> Call:
    """Modules that differ in nothing but values are one to `jax.jit`."""
    return _tracing_each_time(jax.jit(compute, static_argnums=(0, 1)))


def _computed(graphdef: Any, static: tuple[tuple[str, Any], ...], params: Any, *arrays: Any) -> Any:
    return nnx.merge(graphdef, params)(*arrays, **dict(static))


# For the layers of a text encoder, which differ in nothing but values.
traced_once = _tracing_once(_computed)


def _again(gather: Callable[[Any], Any] | None, policy: Callable[..., bool] | None) -> _Compute:
    """A call of which the backward pass computes again what `policy` does not keep, by default all."""

    def compute(graphdef: Any, static: tuple[tuple[str, Any], ...], params: Any, *arrays: Any) -> Any:
        def of_parts(params: Any, *arrays: Any) -> Any:
            whole = params if gather is None else gather(not_before(params, arrays))
            return _computed(graphdef, static, whole, *arrays)

        return jax.checkpoint(of_parts, policy=policy)(params, *arrays)

    return compute


def _all_but_parameters(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name not in _CHEAP
