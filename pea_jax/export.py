"""Write the adapter of a checkpoint as an adapter directory.

python -m pea_jax.export --workdir runs/ru-emoji --out adapter [--step 200]
"""

import json
import pathlib

from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from pea_jax import adapter_folder, command
from pea_jax import mesh as meshes
from pea_jax.checkpoint import Checkpoints
from pea_jax.distill import models
from pea_jax.errors import PeaError
from pea_jax.report import console

WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of a training run")
OUT = flags.DEFINE_string("out", None, "Adapter directory to write")
STEP = flags.DEFINE_integer("step", None, "Which checkpoint; by default the latest")


def main() -> None:
    if WORKDIR.value is None or OUT.value is None:
        raise PeaError("--workdir and --out are both needed, e.g. --workdir runs/ru-emoji --out adapter")
    workdir = pathlib.Path(WORKDIR.value)
    try:
        config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    except OSError as error:
        raise PeaError(f"{workdir}: not the work directory of a training run (no config.json)") from error
    mesh = meshes.make_mesh(**config.mesh)
    frozen = models.load_models(config, mesh)
    adapter = models.new_adapter(config, frozen)
    with Checkpoints(workdir / "checkpoints", every=1, keep=1) as checkpoints:
        state = checkpoints.restore(models.new_state(config, adapter, mesh), step=STEP.value)
    nnx.update(adapter, state.exported)
    adapter_folder.save(pathlib.Path(OUT.value), config, adapter, frozen.student, int(state.step))
    console.print(f"adapter of step {int(state.step)}: {OUT.value}")


if __name__ == "__main__":
    command.run(main)
