"""FID's Inception against torch-fidelity 0.4.0, whose features for the weights and pictures below are written down.

The library needs torchvision, which would change how transformers prepares pictures in other tests.
"""

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from pea_jax.errors import PeaError
from pea_jax.models.inception import WIDTH, Inception
from pea_jax.weights import fill
from pea_jax.weights.inception import FILE, load_inception
from tests.language_clips import shapes
from tests.torch_oracle import compiled

# Of `FeatureExtractorInceptionV3`, its layers one after the other on pictures of 139x139.
MEAN, DEVIATION = 0.10364495, 0.13879806
EVERY_256TH = [
    [0.00000000, 0.00000000, 0.02628761, 0.13228698, 0.02086726, 0.01142858, 0.00000000, 0.13643824],
    [0.00000000, 0.00000000, 0.02889125, 0.13032943, 0.02032261, 0.01208978, 0.00000000, 0.13149156],
]


def random_tensors(sizes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights that keep activations in their range, in the order of the sorted names."""
    rng, tensors = np.random.default_rng(0), {}
    for name in sorted(sizes):
        x = rng.standard_normal(sizes[name], np.float32)
        if x.ndim == 4:
            x *= (2 / np.prod(x.shape[1:])) ** 0.5
        elif name.endswith("running_var"):
            x = 1 + 0.3 * np.abs(x)
        else:
            x = 0.1 * x + name.endswith("bn.weight")
        tensors[name] = x.astype(np.float32)
    return tensors


def test_features_are_those_of_torch_fidelity():
    sizes = shapes(nnx.eval_shape(Inception))
    assert len(sizes) == 5 * 94 and sum(map(np.prod, sizes.values())) == 21_820_000
    model = fill(nnx.eval_shape(Inception), random_tensors(sizes), source="test")
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, 139, 139, 3)).astype(np.float32)
    features = np.asarray(compiled(model)(pixels))
    assert features.shape == (2, WIDTH)
    np.testing.assert_allclose([features.mean(), features.std()], [MEAN, DEVIATION], rtol=1e-4)
    np.testing.assert_allclose(features[:, ::256], EVERY_256TH, atol=1e-5)


def test_a_missing_or_wrong_file_is_named(tmp_path):
    with pytest.raises(PeaError, match=f"{FILE}: no such file; .*curl -LO https://github.com/mseitzer/pytorch-fid"):
        load_inception(tmp_path / FILE)
    save_file({"fc.weight": np.zeros((2, 2), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(PeaError, match="a.safetensors does not fit Inception: 470 missing"):
        load_inception(tmp_path / "a.safetensors")
