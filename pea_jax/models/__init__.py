"""Architectures as Flax NNX modules. Attribute names are the PyTorch checkpoint's names, arrays are NHWC."""
