"""Distances between two sets of pictures, from a feature vector of each: FID, KID and CMMD. All in float64."""

from typing import NamedTuple

import numpy as np

from pea_jax.errors import PeaError

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0


class KernelDistance(NamedTuple):
    """The mean over subsets, and their standard deviation (which is no interval: subsets share pictures)."""

    value: float
    spread: float


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Fréchet distance of the normal distributions with the moments of `a [N, D]` and `b [M, D]`.

    With Inception's features it is the FID (Heusel et al. 2017). It shrinks as N and M grow: only figures of equal
    numbers can be compared.

    Raises:
      PeaError: fewer than two vectors in a set, or other widths.
    """
    a, b = _checked(a, b)
    # With A'A and B'B the covariances, the trace of the root of their product is the nuclear norm of AB'.
    factors = [_factor(x) for x in (a, b)]
    cross = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    traces = sum(np.square(factor).sum() for factor in factors)
    return float(max(0.0, np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * cross))


def kernel_distance(
    a: np.ndarray, b: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Squared maximum mean discrepancy, unbiased, with the kernel `(x'y / D + 1) ** 3`, over random subsets.

    With Inception's features it is the KID (Bińkowski et al. 2018). It does not depend on N and M, may be below 0, and
    is the same for the same seed. A set with fewer than `subset_size` vectors makes the subsets smaller.

    Raises:
      PeaError: fewer than two vectors in a set, or other widths.
    """
    a, b = _checked(a, b)
    rng, size = np.random.default_rng(seed), min(subset_size, len(a), len(b))
    rounds = 1 if size == len(a) == len(b) else subsets
    values = [_mmd(*(x[rng.choice(len(x), size, replace=False)] for x in (a, b))) for _ in range(rounds)]
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def cmmd(a: np.ndarray, b: np.ndarray, chunk: int = 1024) -> float:
    """1000 times the squared maximum mean discrepancy with a Gaussian kernel of width 10 (Jayasumana et al. 2024).

    `a [N, D]` and `b [M, D]` are CLIP's unit vectors; the published figures are of ViT-L/14 at 336 pixels. Biased, as
    published: the pairs of a vector with itself count.

    Raises:
      PeaError: fewer than two vectors in a set, or other widths.
    """
    a, b = _checked(a, b)
    inner = _mean_gaussian(a, a, chunk) + _mean_gaussian(b, b, chunk)
    return CMMD_SCALE * (inner - 2 * _mean_gaussian(a, b, chunk))


def _checked(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise PeaError(f"features of shape {a.shape} and {b.shape} cannot be compared; they must be of one width")
    if min(len(a), len(b)) < 2:
        raise PeaError(f"sets of {len(a)} and {len(b)} pictures cannot be compared; each must have two or more")
    return a.astype(np.float64), b.astype(np.float64)


def _factor(x: np.ndarray) -> np.ndarray:
    """`[min(N, D), D]`, whose square `F'F` is the covariance of `x [N, D]`."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(x) > x.shape[1] else centred


def _mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased, of sets of one size."""
    width, count = a.shape[1], len(a)
    inner = [(x @ x.T / width + 1) ** 3 for x in (a, b)]
    within = sum((kernel.sum() - np.trace(kernel)) for kernel in inner) / (count * (count - 1))
    return float(within - 2 * np.mean((a @ b.T / width + 1) ** 3))


def _mean_gaussian(a: np.ndarray, b: np.ndarray, chunk: int) -> float:
    norms, total = np.square(b).sum(1), 0.0
    for start in range(0, len(a), chunk):
        rows = a[start : start + chunk]
        squares = np.square(rows).sum(1)[:, None] + norms - 2 * rows @ b.T
        total += np.exp(-squares / (2 * CMMD_SIGMA**2)).sum()
    return total / (len(a) * len(b))
