"""Adapters in PyTorch, for `diffusers` pipelines; imports no JAX."""

from pea_jax.pytorch.adapter import PEAdapter

__all__ = ["PEAdapter"]
