"""Encoding in chunks: any number of rows, few compilations, any mesh."""

import json
import os
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from pea_jax.text.chunks import SIZES, ChunkedEncoder


def rows(count: int) -> np.ndarray:
    return np.arange(count * 3, dtype=np.int32).reshape(count, 3)


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 63, 64, 65, 150])
def test_rows_come_back_in_order(count: int):
    encode = ChunkedEncoder(lambda params, tokens: {"sum": (tokens["ids"] * params).sum(1), "none": None})
    result = encode(jnp.int32(2), {"ids": rows(count)})
    assert result["none"] is None
    np.testing.assert_array_equal(result["sum"], 2 * rows(count).sum(1))


def test_one_compilation_a_size():
    traced = []
    encode = ChunkedEncoder(lambda params, tokens: traced.append(tokens["ids"].shape) or tokens["ids"] + params)
    for count in range(1, 200, 7):
        encode(jnp.int32(1), {"ids": rows(count)})
    assert sorted(traced) == [(size, 3) for size in SIZES]


def test_split_over_devices():
    """In a process with four devices; every chunk is split over them, parameters over some."""
    code = """
        import jax, json, numpy as np
        from pea_jax import mesh as meshes
        from pea_jax.text.chunks import ChunkedEncoder
        mesh = meshes.make_mesh(data=2, fsdp=2)
        params = jax.device_put(np.ones((2, 3), np.float32), jax.NamedSharding(mesh, jax.P("fsdp")))
        shapes = []
        def encode(params, tokens):
            jax.debug.inspect_array_sharding(tokens["ids"], callback=lambda s: shapes.append(s.shard_shape((8, 2))[0]))
            return tokens["ids"] @ params
        ids = np.arange(10, dtype=np.float32).reshape(5, 2)
        result = ChunkedEncoder(encode, mesh)(params, {"ids": ids})
        print(json.dumps([result.tolist(), (ids @ np.ones((2, 3))).tolist(), shapes]))
    """
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    result, expected, shapes = json.loads(process.stdout)
    assert result == expected and shapes == [2]
