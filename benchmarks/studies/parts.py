"""Which parameters of a UNet are trained in place of an adapter, and how the trained ones go into the frozen tree."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


@dataclasses.dataclass(frozen=True)
class Part:
    """Parameters whose module is called one of `modules` (empty: all), below one of `blocks` (empty: any).

    With a `rank` they stay as they are, and what is trained is the difference, a product of two matrices (LoRA). Their
    learning rate is `rate` times that of the adapter: what is trained already bears less than what is not.
    """

    modules: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    rank: int = 0
    rate: float = 1.0


PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")
PARTS = {
    "lora": Part(PROJECTIONS, ("attn2",), rank=8, rate=0.5),
    "key_value": Part(("to_k", "to_v"), ("attn2",), rate=0.25),
    "unet": Part(rate=0.1),
    "style": Part((*PROJECTIONS, "proj", "net", "proj_in", "proj_out"), rank=16, rate=0.5),
}

Path = tuple[Any, ...]


def start(part: Part, unet: nnx.State, key: Array) -> dict[str, Any]:
    """What is trained, by dotted path: a copy of the parameter, or `down` `[a, r]` and `up` `[r, b]`, which is zero."""
    chosen = {_dotted(path): leaf for path, leaf in _leaves(unet) if _chosen(part, path, leaf)}
    if not part.rank:
        return {name: jnp.copy(leaf) for name, leaf in chosen.items()}
    keys = jax.random.split(key, len(chosen))
    return {name: _matrices(chosen[name].shape, part.rank, each) for name, each in zip(chosen, keys, strict=True)}


def merged(unet: nnx.State, trained: Mapping[str, Any], scale: float = 1.0) -> nnx.State:
    """`unet` with the trained parameters in their places, or the differences, `scale` times, added."""

    def new(path: Path, leaf: Array) -> Array:
        value = trained.get(_dotted(_names(path)))
        if value is None:
            return leaf
        return leaf + scale * (value["down"] @ value["up"]) if isinstance(value, dict) else value

    return jax.tree_util.tree_map_with_path(new, unet)


def _matrices(shape: tuple[int, ...], rank: int, key: Array) -> dict[str, Array]:
    rows, columns = shape
    return dict(down=jax.random.normal(key, (rows, rank)) / rank, up=jnp.zeros((rank, columns)))


def _chosen(part: Part, path: Path, leaf: Array) -> bool:
    inside = not part.blocks or any(block in path for block in part.blocks)
    named = not part.modules or any(module in path for module in part.modules)
    return inside and named and (leaf.ndim == 2 or not part.rank)


def _leaves(unet: nnx.State) -> list[tuple[Path, Array]]:
    return [(_names(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(unet)]


def _names(path: Any) -> Path:
    """The attributes on the way; what wraps a parameter has no name of its own."""
    names = (getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", None))) for entry in path)
    return tuple(str(name) for name in names if name is not None and name != "value")


def _dotted(path: Path) -> str:
    return ".".join(path)
