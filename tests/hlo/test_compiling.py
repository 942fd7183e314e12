"""What the compiler for TPUs says of a program before its kernels are made, and after."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from pea_jax import chips, hlo
from pea_jax import mesh as meshes


def lowered(width: int) -> jax.stages.Lowered:
    """Two matrix products with kernels gathered from four chips."""
    mesh = meshes.make_mesh(fsdp=4, devices=chips.topology_devices("v5e:2x2"))
    kernel = jax.ShapeDtypeStruct(
        (width, width), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec("fsdp", None))
    )
    x = jax.ShapeDtypeStruct((8192, width), jnp.bfloat16, sharding=meshes.batch_sharding(mesh))

    def step(kernels, x):
        for each in kernels:
            x = jnp.tanh(x @ jax.lax.with_sharding_constraint(each, meshes.replicated(mesh)))
        return x, jnp.mean(x.astype(jnp.float32), 1)

    with jax.default_matmul_precision("default"):
        return jax.jit(step).lower([kernel, kernel], x)


def test_memory_is_known_before_the_kernels_are(tmp_path):
    early, whole = hlo.plan_memory(lowered(4096), tmp_path), hlo.finish(lowered(4096))
    assert early.code is None and whole.code > 0
    assert early.arguments == whole.arguments == 2 * 1024 * 4096 * 2 + 2048 * 4096 * 2
    assert whole.temporary <= early.temporary <= 1.02 * whole.temporary
    assert hlo.traffic(early.text) == hlo.traffic(whole.text) == dict(gathered=2 * 3 * 1024 * 4096 * 2, reduced=0)
    assert 4096 * 4096 * 2 <= hlo.gathered_at_once(early.text) == hlo.gathered_at_once(whole.text)


def test_what_does_not_fit_is_said_before_the_kernels_are_made(tmp_path):
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        hlo.plan_memory(lowered(2**18), tmp_path)
    used, limit = chips.too_large(caught.value)
    assert used > limit == int(15.75 * 2**30)


def test_an_account_of_buffers():
    account = """BufferAssignment:
allocation 0: size 100, parameter 8, shape |bf16[50]| at ShapeIndex {}:
 value: <545 param.1 @0> (size=100,offset=0): bf16[50]{0}
allocation 1: size 200, parameter 0, shape |f32[50]| at ShapeIndex {}, maybe-live-out:
allocation 2: size 32, output shape is |bf16[16]|, maybe-live-out:
allocation 3: size 999, color 1, preallocated-temp:
allocation 4: size 4000, preallocated-temp:
"""
    assert hlo.allocations(account) == (300, 4032)
    later = """allocation 0: size 512, page 0, thread-local:
allocation 1: size 100, page 0, parameter 2, shape |bf16[50]| at ShapeIndex {}:
allocation 2: size 40, page 0, maybe-live-out:
allocation 3: size 999, color 1, page 0, preallocated-temp:
"""
    assert hlo.allocations(later) == (100, 40)
