"""Run by test_preemption: a loop that does nothing but count steps, and save when it is told to end.

python -m tests.preemption_loop FOLDER INDEX COUNT PORT [FLAG ...]
"""

import pathlib
import sys
import time

import grain
import numpy as np

from pea_jax import command
from pea_jax.checkpoint import Checkpoints
from pea_jax.preemption import Preemption


def main(folder: pathlib.Path, index: int, count: int) -> None:
    def say(word: str) -> None:
        (folder / f"{word}_{index}").touch()

    place = iter(grain.MapDataset.range(4).to_iter_dataset())
    with Preemption("run") as preemption:
        say("loading")
        while (folder / "load").exists():
            time.sleep(0.01)
        preemption.defer()
        for step in range(1, 5000):
            time.sleep(0.01 * (1 + index))
            say("stepping")
            if preemption.due(step):
                say("saving")
                time.sleep(1)
                if count == 1:
                    with Checkpoints(folder / "checkpoints", every=1000, keep=1) as checkpoints:
                        checkpoints.save(step, {"w": np.zeros(2)}, place, force=True)
                raise preemption.interrupted(f"step {step} is saved")


if __name__ == "__main__":
    folder, index, count, port = sys.argv[1:5]
    del sys.argv[1:5]
    if int(count) > 1:
        sys.argv += [f"--coordinator=localhost:{port}", f"--num_processes={count}", f"--process_id={index}"]
    command.run(lambda: main(pathlib.Path(folder), int(index), int(count)))
