"""The sides of `step.py` by name, each made in its own process."""

from typing import Any

from benchmarks.step_work import Work

# Fields of the config, beside those of the run.
OURS: dict[str, dict[str, Any]] = {
    "pea_jax": {},
    "pea_jax-uncached": {},
    "pea_jax-remat": {"remat": "block"},
    "pea_jax-int8": {"quantisation.weights": "int8"},
    "pea_jax-int8-all": {"quantisation.weights": "int8", "quantisation.activations": True},
    "pea_jax-float8": {"quantisation.weights": "float8_e4m3fn"},
    "pea_jax-float8-all": {"quantisation.weights": "float8_e4m3fn", "quantisation.activations": True},
}


def make_side(name: str, work: Work) -> Any:
    """A `JaxSide` or a `TorchSide`; `NAME@2` in two threads."""
    name, _, threads = name.partition("@")
    if is_ours(name):
        from benchmarks.step_jax import JaxSide

        return JaxSide(work, cached=is_cached(name), fields=OURS[name])
    import dataclasses

    from benchmarks.step_torch import RECIPES, TorchSide

    return TorchSide(work, dataclasses.replace(RECIPES[name], threads=int(threads or 0)))


def is_ours(name: str) -> bool:
    return name.partition("@")[0] in OURS


def is_cached(name: str) -> bool:
    """Whether latents and text states come from a cache."""
    return name not in ("published", "pea_jax-uncached")


def environment(name: str, cache: str, *, alone: bool) -> dict[str, str]:
    """Variables that must be set before a side's libraries are loaded; `alone`: no other side needs memory."""
    _, _, threads = name.partition("@")
    own = dict(OMP_NUM_THREADS=threads) if threads else {}
    return own | dict(
        JAX_COMPILATION_CACHE_DIR=cache,
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        XLA_PYTHON_CLIENT_PREALLOCATE="true" if alone else "false",
        XLA_PYTHON_CLIENT_MEM_FRACTION="0.95",
    )
