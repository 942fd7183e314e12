"""FID, KID and CMMD against closed forms, scipy, and their definitions."""

import numpy as np
import pytest
from scipy import linalg

from pea_jax.errors import PeaError
from pea_jax.metrics.frechet import cmmd, frechet_distance, kernel_distance


def normal(count: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)


def with_moments(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Vectors with exactly this mean and covariance."""
    x = np.random.default_rng(seed).normal(size=(count, len(mean)))
    x -= x.mean(0)
    whitened = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def test_frechet_of_known_moments():
    """Of covariances that commute the distance is that of means and standard deviations."""
    means, deviations = np.array([[0.0, 1, 2], [3, 1, -1]]), np.array([[1.0, 2, 0.5], [2, 2, 3]])
    a, b = (with_moments(means[i], np.diag(deviations[i] ** 2), 50 + i, seed=i) for i in range(2))
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-9)


@pytest.mark.parametrize("counts", [(200, 300), (200, 5), (7, 9)], ids=["many", "one short", "few"])
def test_frechet_equals_the_matrix_root(counts: tuple[int, int]):
    a, b = (normal(count, 12, seed) for seed, count in enumerate(counts))
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(sum(covariances) - 2 * root)
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_frechet_of_a_set_with_itself_is_nothing():
    a = normal(300, 20, 0)
    assert 0 <= frechet_distance(a, a.astype(np.float32)[::-1]) < 1e-4


def test_kernel_distance_equals_its_definition():
    a, b = normal(6, 4, 0), normal(6, 4, 1)

    def kernel(x, y):
        return (x @ y / 4 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    within = sum(kernel(x[i], x[j]) for x in (a, b) for i, j in pairs) / len(pairs)
    across = np.mean([kernel(x, y) for x in a for y in b])
    value, spread = kernel_distance(a, b)
    np.testing.assert_allclose(value, within - 2 * across, rtol=1e-12)
    assert spread == 0


def test_kernel_distance_is_unbiased_and_seeded():
    rng = np.random.default_rng(0)
    values = [kernel_distance(*rng.normal(size=(2, 40, 8))).value for _ in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    a, b = rng.normal(size=(2, 60, 8))
    subsets = kernel_distance(a, b + 1, subset_size=20)
    assert subsets == kernel_distance(a, b + 1, subset_size=20) != kernel_distance(a, b + 1, subset_size=20, seed=1)
    np.testing.assert_allclose(subsets.value, kernel_distance(a, b + 1).value, rtol=0.2)
    assert subsets.spread > 0


def test_cmmd_equals_its_definition():
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (normal(5, 6, 0), normal(8, 6, 1)))

    def mean(x, y):
        return np.mean([np.exp(-np.square(p - q).sum() / 200) for p in x for q in y])

    expected = 1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b))
    np.testing.assert_allclose(cmmd(a, b, chunk=3), expected, rtol=1e-9)
    assert cmmd(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance, cmmd])
def test_sets_that_cannot_be_compared(distance):
    with pytest.raises(PeaError, match="must be of one width"):
        distance(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(PeaError, match="sets of 3 and 1 pictures"):
        distance(np.zeros((3, 4)), np.zeros((1, 4)))
