"""Write an adapter directory: from a checkpoint, or from an adapter that was published for PyTorch.

    python -m pea_jax.export --workdir runs/ru-emoji --out adapter [--step 200]
    python -m pea_jax.export --from_torch pytorch_model.bin --config configs/zh.py:mul_clip --out adapter

Sent to the Hugging Face Hub with its card and the sheet of samples of its step, after `hf auth login`; --dry_run says
what would go and sends nothing:

    python -m pea_jax.export --workdir runs/ru --out adapter --push_to_hub USER/NAME [--private] [--dry_run]

Its card names a licence if you do, `--license apache-2.0`.

A published file says neither its text encoder nor its base model; the configuration does. Without --config the
directory holds the adapter alone, for `PEAdapter.from_pretrained`.
"""

import json
import pathlib
from typing import Any

from absl import flags
from flax import nnx
from ml_collections import ConfigDict, config_flags

from pea_jax import adapter_folder, command, publishing
from pea_jax import mesh as meshes
from pea_jax.adapter import PEAdapter, check_replaceable
from pea_jax.checkpoint import Checkpoints, choose_step
from pea_jax.config import of_run
from pea_jax.distill import models
from pea_jax.errors import PeaError
from pea_jax.report import console
from pea_jax.text.joined import with_padding
from pea_jax.weights.abstract import without_values

WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of a training run")
OUT = flags.DEFINE_string("out", None, "Adapter directory to write")
FROM_TORCH = flags.DEFINE_string("from_torch", None, "A published adapter, pickled or safetensors, in any layout")
CONFIG = config_flags.DEFINE_config_file("config", None, "What a published adapter was trained with")
STEP = flags.DEFINE_integer("step", None, "Which checkpoint; by default the latest")
PUSH = flags.DEFINE_string("push_to_hub", None, "USER/NAME on the Hugging Face Hub where the adapter is sent as well")
PRIVATE = flags.DEFINE_bool("private", False, "Nobody else sees it there, if it is new")
LICENSE = flags.DEFINE_string("license", None, "Of the adapter, for its card, as the Hub names it, e.g. apache-2.0")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what --push_to_hub would send, and send nothing")
SAMPLES = flags.DEFINE_string("samples", None, "PNG file for the card; by default what the training drew at that step")


def main() -> None:
    if bool(WORKDIR.value) == bool(FROM_TORCH.value) or not OUT.value:
        raise PeaError("--out and one of --workdir and --from_torch are needed, e.g. --workdir runs/ru --out adapter")
    if WORKDIR.value and CONFIG.value is not None:
        raise PeaError("--config: is of --from_torch; a run in --workdir has its own, config.json")
    if FROM_TORCH.value and STEP.value is not None:
        raise PeaError("--step: is of --workdir; a published adapter has no checkpoints")
    out = pathlib.Path(OUT.value)
    check_replaceable(out)
    command.check_folder("--out", out)
    if LICENSE.value is not None:
        publishing.check_license(LICENSE.value)
    if PUSH.value is not None:
        publishing.check(PUSH.value, dry_run=DRY_RUN.value)
    elif alone := [flag.name for flag in (SAMPLES, PRIVATE, DRY_RUN) if flag.value]:
        raise PeaError(f"--{alone[0]}: is of what goes to the Hugging Face Hub; give --push_to_hub USER/NAME as well")
    samples = pathlib.Path(SAMPLES.value) if SAMPLES.value else None
    if samples is not None:
        publishing.check_samples(samples)
    if FROM_TORCH.value:
        bring_in(pathlib.Path(FROM_TORCH.value), CONFIG.value, out)
    elif WORKDIR.value:
        workdir = pathlib.Path(WORKDIR.value)
        step = export(workdir, out)
        samples = samples or publishing.samples_at(workdir, step)
    if PUSH.value is not None:
        _push(out, PUSH.value, samples)


def _push(out: pathlib.Path, repo_id: str, samples: pathlib.Path | None) -> None:
    if samples is not None:
        publishing.add_samples(out, samples, "the same prompts and noise, before and after training")
    publishing.publish(out, repo_id, private=PRIVATE.value, dry_run=DRY_RUN.value)


def bring_in(path: pathlib.Path, config: ConfigDict | None, out: pathlib.Path) -> None:
    """Write the published adapter in the file `path` to the directory `out`."""
    adapter = PEAdapter.from_published(path)
    encoder = _padding_of(config) if config is not None else None
    adapter_folder.save_published(out, adapter, path.name, config, LICENSE.value, encoder)
    console.print(f"adapter of {path}: {out}")
    if config is None:
        console.print("its config.json names no text encoder and no base model; --config says which they are")


def _padding_of(config: ConfigDict) -> dict[str, Any] | None:
    """The text encoder of the config with how it pads, if its tokenizer is to be had."""
    try:
        return with_padding(json.loads(config.to_json())["text_encoder"])
    except PeaError as error:
        console.print(f"config.json does not say how the text encoder pads, so nobody can check it: {error}")
        return None


def export(workdir: pathlib.Path, out: pathlib.Path) -> int:
    """Write the adapter of a checkpoint of the run in `workdir` to the directory `out`; gives its step."""
    config, folder = of_run(workdir), workdir / "checkpoints"
    if config is None:
        raise PeaError(f"--workdir {workdir}: not the work directory of a training run (no config.json)")
    step = choose_step(folder, STEP.value)
    mesh = meshes.make_mesh()  # not that of the config: the run may have had another machine
    with without_values():
        frozen = models.load_models(config, mesh)
    adapter = models.new_adapter(config, frozen)
    with Checkpoints(folder, every=1, keep=1) as checkpoints:
        state = checkpoints.restore(models.new_state(config, adapter, mesh), step=step)
    nnx.update(adapter, state.exported)
    adapter_folder.save(out, config, adapter, frozen.student, step, LICENSE.value)
    console.print(f"adapter of step {step}: {out}")
    return step


if __name__ == "__main__":
    command.run(main)
