"""How a UNet calls its parts: directly, or with parameters gathered and activations computed again for each of them.

A UNet whose parameters are split over devices is never whole on one: each layer gathers its own, uses them and lets
them go, and the backward pass gathers them again.
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
    ("sharding_constraint", "convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "slice", "transpose")
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
    if gather is None and remat == "none":
        return DIRECT
    policy = _all_but_parameters if remat == "none" else None
    return Calls(
        layer=_again(gather or _as_it_is, policy), block=_again(_as_it_is, None) if remat == "full" else directly
    )


def _again(prepare: Callable[[Any], Any], policy: Callable[..., bool] | None) -> Call:
    """A call of which the backward pass computes again what `policy` does not keep, by default all."""

    def call(module: Any, *arrays: Any, **static: Any) -> Any:
        graphdef, params = nnx.split(module)

        def compute(params: Any, *arrays: Any) -> Any:
            return nnx.merge(graphdef, prepare(params))(*arrays, **static)

        return jax.checkpoint(compute, policy=policy)(params, *arrays)

    return call


def _as_it_is(params: Any) -> Any:
    return params


def _all_but_parameters(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name not in _CHEAP
