"""The autoencoder, a few pictures at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pea_jax.models.vae import AutoencoderKL, VAEConfig
from pea_jax.sampling import vae_slicing
from pea_jax.sampling.vae_slicing import SlicedVAE, in_slices

SIZES: list[int] = []


@pytest.mark.parametrize(
    ("rows", "devices", "most", "expected"),
    [(6, 1, 9, 6), (6, 1, 4, 3), (7, 1, 3, 1), (8, 2, 2, 4), (6, 2, 1, 2), (12, 2, 4, 6)],
)
def test_as_many_rows_as_divide_those_of_a_device(rows, devices, most, expected):
    """All batches are of one size; each has as many rows of every device."""
    sizes, values = [], jnp.arange(rows * 3.0).reshape(rows, 3)

    def function(some):
        sizes.append(len(some))
        device = jnp.arange(len(some)) // (len(some) // devices)  # on which each row is taken to be
        return some[:, :2] ** 2 + 1000 * device[:, None]

    found = in_slices(function, values, devices, most)
    of_device = np.arange(rows) // (rows // devices)
    np.testing.assert_array_equal(found, np.asarray(values)[:, :2] ** 2 + 1000 * of_device[:, None])
    assert set(sizes) == {expected}


class Counting(AutoencoderKL):
    """Says of how many rows it is asked at a time."""

    def encode(self, pixels):
        SIZES.append(len(pixels))
        return super().encode(pixels)

    def decode(self, latents):
        SIZES.append(len(latents))
        return super().decode(latents)


def test_an_autoencoder_in_slices_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    vae = Counting(VAEConfig(block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1))
    nnx.update(vae, jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype), nnx.state(vae)))
    latents = rng.normal(size=(6, 4, 6, 4)).astype(np.float32)
    pixels, sliced = vae.decode(latents), SlicedVAE(vae)
    moments = vae.encode(pixels)
    monkeypatch.setattr(vae_slicing, "PIXELS", 2 * 8 * 12)
    SIZES.clear()
    np.testing.assert_allclose(sliced.decode(latents), pixels, atol=1e-5)
    np.testing.assert_allclose(sliced.encode(pixels), moments, atol=1e-5)
    assert set(SIZES) == {2} and np.std(pixels) > 0.01
