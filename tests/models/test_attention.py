"""The choice of an attention kernel, and each kernel against the dense computation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from pea_jax.models import attention as attentions
from pea_jax.models.attention import attention, choose_kernel
from pea_jax.models.splash import block_size, splash_attention
from tests.torch_oracle import normal, relative_error

V5E, H100 = "TPU v5 lite", "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize("shape", [(2, 9, 5, 3, 8), (1, 4, 4, 1, 16), (3, 7, 2, 4, 12)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention(shape, masked):
    batch, targets, sources, heads, width = shape
    query = normal(batch, targets, heads, width)
    key, value = normal(2, batch, sources, heads, width, seed=1)
    mask = np.random.default_rng(2).random((batch, 1, 1, sources)) < 0.6 if masked else None
    if masked:
        mask[..., 0] = True
    heads_first = [torch.from_numpy(x).transpose(1, 2) for x in (query, key, value)]
    torch_mask = torch.from_numpy(mask) if masked else None
    expected = torch.nn.functional.scaled_dot_product_attention(*heads_first, attn_mask=torch_mask).transpose(1, 2)
    assert relative_error(attention(query, key, value, mask), expected) <= 1e-4


@pytest.mark.parametrize(
    ("kind", "query", "keys", "dtype", "kernel"),
    [
        # Stable Diffusion XL at 640x640: both levels, pixels to pixels and to 77 tokens
        (V5E, (8, 1600, 10, 64), 1600, jnp.bfloat16, "splash"),
        (V5E, (8, 400, 20, 64), 400, jnp.bfloat16, "splash"),
        (V5E, (8, 1600, 10, 64), 77, jnp.bfloat16, "dense"),
        (H100, (8, 1600, 10, 64), 1600, jnp.bfloat16, "cudnn"),
        (H100, (8, 1600, 10, 64), 77, jnp.bfloat16, "cudnn"),
        # its autoencoder: one head of 512; Stable Diffusion 1.5: 8 heads of 40 to 160
        (H100, (8, 6400, 1, 512), 6400, jnp.bfloat16, "dense"),
        (H100, (8, 4096, 8, 40), 4096, jnp.float16, "cudnn"),
        (H100, (8, 64, 8, 160), 64, jnp.float16, "dense"),
        (V5E, (8, 4096, 8, 40), 4096, jnp.bfloat16, "dense"),
        # neither kernel takes float32, cuDNN's runs on NVIDIA's GPUs from Ampere on
        (H100, (8, 1600, 10, 64), 1600, jnp.float32, "dense"),
        (V5E, (8, 1600, 10, 64), 1600, jnp.float32, "dense"),
        ("NVIDIA GeForce RTX 2080 Ti", (8, 1600, 10, 64), 1600, jnp.float16, "dense"),
        ("Tesla T4", (8, 1600, 10, 64), 1600, jnp.float16, "dense"),
        ("NVIDIA RTX 2000 Ada Generation", (8, 1600, 10, 64), 1600, jnp.float16, "cudnn"),
        ("AMD Instinct MI300X", (8, 1600, 10, 64), 1600, jnp.bfloat16, "dense"),
        ("cpu", (8, 1600, 10, 64), 1600, jnp.bfloat16, "dense"),
    ],
)
def test_choice(kind, query, keys, dtype, kernel):
    assert choose_kernel(kind, query, (query[0], keys, *query[2:]), dtype) == kernel


@pytest.mark.parametrize(("length", "keys"), [(160, 200), (128, 128)])
def test_splash_is_the_dense_one(length, keys):
    """Values and gradients, at lengths that are padded and at one that is not."""
    query, key, value = normal(1, length, 2, 64), normal(1, keys, 2, 64, seed=1), normal(1, keys, 2, 64, seed=2)
    weight = normal(1, length, 2, 64, seed=3)

    def run(attend):
        def loss(*arrays):
            y = attend(*arrays, scale=0.2)
            return jnp.sum(y * weight), y

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(query, key, value)

    ours, expected = run(functools.partial(splash_attention, interpret=True)), run(attention)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert relative_error(a, b) <= 1e-4


@pytest.mark.parametrize(
    ("length", "block", "blocks"),
    [(364, 384, 1), (400, 512, 1), (1456, 768, 2), (1536, 768, 2), (1600, 896, 2), (4096, 1024, 4), (6400, 640, 10)],
)
def test_blocks_are_large_and_pad_little(length, block, blocks):
    assert block_size(length) == block and -(-length // block) == blocks


def mesh_of(kind: str, devices: int) -> AbstractMesh:
    device = AbstractDevice(device_kind=kind, num_cores=1, platform="gpu" if kind == H100 else "tpu")
    return AbstractMesh((devices, 1), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, abstract_device=device)


@pytest.mark.parametrize(("devices", "length", "keys"), [(1, 64, 64), (4, 64, 64), (1, 64, 77), (1, 225, 225)])
def test_the_mesh_decides_and_not_this_machine(monkeypatch, devices, length, keys):
    """Lowered here for a GPU that is not there: cuDNN's forward and backward, on each device's rows."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    step = jax.jit(jax.grad(lambda *x: attention(*x).astype(jnp.float32).sum(), argnums=(0, 1, 2)))
    with jax.sharding.use_abstract_mesh(mesh_of(H100, devices)):
        arrays = [jax.ShapeDtypeStruct((4, size, 2, 64), jnp.bfloat16) for size in (length, keys, keys)]
        text = step.trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("__cudnn$fmhaSoftmax(") == 1 and text.count("__cudnn$fmhaSoftmaxBackward(") == 1
    rows, padded = 4 // devices, length + length % 2
    assert f"tensor<{rows}x{padded}x2x64xbf16>" in text and "exponential" not in text


def test_what_a_kernel_cannot_do_stays_dense():
    query, key, value = (jnp.ones((3, 256, 1, 64), jnp.bfloat16) for _ in range(3))
    mask = jnp.ones((1, 1, 1, 256), bool)
    with jax.sharding.use_abstract_mesh(mesh_of(V5E, 1)):
        masked = jax.make_jaxpr(lambda *x: attention(*x, mask))(query, key, value)
        assert "pallas_call" not in str(masked)
        assert "pallas_call" in str(jax.make_jaxpr(attention)(query, key, value))
    with jax.sharding.use_abstract_mesh(mesh_of(V5E, 2)):  # three rows are not split over two devices
        assert "pallas_call" not in str(jax.make_jaxpr(attention)(query, key, value))


def test_each_device_attends_to_its_own_rows(monkeypatch):
    """A kernel in `shard_map`, on a mesh of the devices that are here."""
    monkeypatch.setattr(attentions, "choose_kernel", lambda *_: "splash")
    monkeypatch.setitem(attentions.KERNELS, "splash", functools.partial(splash_attention, interpret=True))
    mesh = jax.make_mesh((len(jax.devices()), 1), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    query, key, value = normal(3, 4, 130, 1, 64)
    with jax.set_mesh(mesh):
        ours = jax.jit(attention)(query, key, value)
    assert relative_error(ours, attention(query, key, value)) <= 1e-4
