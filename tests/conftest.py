"""Settings under which every test runs."""

import os

# Spinning OpenMP threads of PyTorch make everything beside them many times slower; read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
