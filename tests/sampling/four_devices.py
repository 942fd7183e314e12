"""Run by test_pipeline: the same pictures on one device and on a mesh of four.

python -m tests.sampling.four_devices FOLDER OUT.npy
"""

import sys

import jax
import numpy as np

from pea_jax import hlo, partition
from pea_jax import mesh as meshes
from pea_jax.sampling import vae_slicing
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.text.conditioner import Conditioning


def main(folder: str, out: str) -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_default_matmul_precision", "highest")
    partition.SMALLEST_SHARDED = 0  # or nothing of a model this small would be
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    prompts, empty = Conditioning(normal(6, 5, 12), normal(6, 10)), Conditioning(normal(1, 5, 12), normal(1, 10))
    pictures = []
    for mesh in (None, meshes.make_mesh(data=2, fsdp=2)):
        pipeline = TextToImage.from_pretrained(folder, mesh=mesh)
        if mesh is not None:
            denoiser, vae = pipeline._params
            pipeline._params = partition.shard_frozen(denoiser, mesh), vae
            leaves = jax.tree.leaves(pipeline._params[0])
            assert any(not leaf.sharding.is_fully_replicated for leaf in leaves), "the UNet is not split"
            vae_slicing.PIXELS = 16 * 16
            check_slices_stay_where_they_are(mesh)
        sampling = Sampling(steps=2, guidance_scale=2.0, batch_size=8)
        pictures.append(pipeline.generate(prompts, empty, sampling, height=16, width=16))
    np.save(out, np.stack(pictures))


def check_slices_stay_where_they_are(mesh: jax.sharding.Mesh) -> None:
    """Each device takes its own rows, two of them one after the other, and nothing is moved."""
    rows = jax.ShapeDtypeStruct((8, 16), np.float32, sharding=meshes.batch_sharding(mesh))
    kernel = jax.ShapeDtypeStruct((16, 16), np.float32, sharding=meshes.replicated(mesh))
    sliced = jax.jit(lambda x, w: vae_slicing.in_slices(lambda some: jax.numpy.tanh(some @ w), x, 4, 1))
    program = sliced.lower(rows, kernel).compile().as_text()
    assert " while(" in program and not any(hlo.traffic(program).values()), hlo.traffic(program)


if __name__ == "__main__":
    main(*sys.argv[1:])
