"""Pictures that a drawing follows: one row a drawing, and what is wrong with them."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pea_jax.errors import PeaError
from pea_jax.sampling.guides import Guides, inpainting_channels

HEIGHT, WIDTH = 8, 12
PICTURE = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)


def test_one_row_for_each_drawing():
    mask = PICTURE[..., 0] > 99
    rows = Guides(PICTURE, mask, np.repeat(PICTURE, 3, 0), 0.5).rows(3, HEIGHT, WIDTH)
    assert rows.image.shape == rows.control_image.shape == (3, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(rows.mask_image[2], np.where(mask[0], 255, 0))
    np.testing.assert_array_equal(rows.controlnet_conditioning_scale, [0.5] * 3)
    again = rows.rows(3, HEIGHT, WIDTH)
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(rows)))
    assert Guides().rows(2, HEIGHT, WIDTH).image is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(image=PICTURE[:, :-1]), r"image: of shape \[1, 7, 12, 3\], must be \[N, 8, 12, 3\]"),
        (dict(mask_image=PICTURE), r"mask_image: of shape \[1, 8, 12, 3\], must be \[N, 8, 12\]"),
        (dict(control_image=PICTURE / 255), "control_image: of dtype float64, must be uint8"),
        (dict(image=PICTURE > 9), "image: of dtype bool"),
        (dict(image=np.repeat(PICTURE, 2, 0)), "image: 2 for 3 drawings; give one for each, or one for all"),
        (dict(controlnet_conditioning_scale=[1, 2]), "controlnet_conditioning_scale: 2 for 3 drawings"),
    ],
)
def test_what_is_wrong_is_named(fields, message):
    with pytest.raises(PeaError, match=message):
        Guides(**fields).rows(3, HEIGHT, WIDTH)


def test_what_is_repainted_is_not_shown():
    seen = []
    moments = jnp.full((1, HEIGHT // 2, WIDTH // 2, 8), 6.0)
    vae = types.SimpleNamespace(
        encode=lambda pixels: seen.append(pixels) or moments, config=types.SimpleNamespace(scaling_factor=0.5)
    )
    mask = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    mask[0, 2:4, 6:8] = 128
    mask[0, 0, 0] = 127
    channels = inpainting_channels(vae, jnp.asarray(PICTURE), jnp.asarray(mask))
    assert channels.shape == (1, HEIGHT // 2, WIDTH // 2, 1 + 4)
    np.testing.assert_array_equal(np.argwhere(channels[0, ..., 0]), [[1, 3]])
    np.testing.assert_array_equal(channels[..., 1:], 3.0)
    expected = np.where(mask[..., None] == 128, 0, PICTURE / 127.5 - 1)
    np.testing.assert_allclose(seen[0], expected, atol=1e-6)
