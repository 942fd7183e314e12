"""Training, export, generation and evaluation as a user runs them; a run killed at any moment loses nothing."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from pea_jax import locks, train
from pea_jax.errors import PeaError
from tests import commands
from tests.commands import CONFIG


@pytest.fixture(scope="module")
def finished(world):
    """The work directory of an uninterrupted run."""
    folder, fields = world
    result = commands.run(commands.command("train", fields, config=CONFIG, workdir=folder / "run"))
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "run"


def entries(workdir: pathlib.Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_run_leaves_what_it_promises(finished):
    lines = entries(finished)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert {"loss", "noise", "output", "features", "learning_rate"} <= lines[0].keys()
    assert all(line["images_per_second"] > 0 for line in lines)
    assert {path.name for path in (finished / "samples").iterdir()} == {"step_0.png", "step_6.png", "step_12.png"}
    assert (finished / "config.json").exists() and list((finished / "tensorboard").iterdir())
    description = json.loads((finished / "adapter" / "config.json").read_text())
    assert description["system"] == "pea" and description["step"] == 12
    assert description["text_encoder"]["context_length"] == 16
    assert "pipeline_tag: text-to-image" in (finished / "adapter" / "README.md").read_text()


def test_running_again_says_that_it_is_done(world, finished):
    _, fields = world
    before = (finished / "adapter" / "adapter.safetensors").stat().st_mtime_ns
    result = commands.run_forked(commands.command("train", fields, config=CONFIG, workdir=finished))
    assert result.returncode == 0 and "all 12 steps are done" in result.stdout
    assert (finished / "adapter" / "adapter.safetensors").stat().st_mtime_ns == before


def test_the_work_directory_of_another_run_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Each would drop what the other logs after its own first step, and remove what it is saving."""
    monkeypatch.setattr(train, "WAIT", 0.5)
    message = f"{tmp_path}: another run is training there; wait for its end"
    with train.alone(tmp_path):
        with pytest.raises(PeaError, match=message):
            train.wait_for_another(tmp_path)
        with pytest.raises(PeaError, match=message), train.alone(tmp_path):
            pytest.fail("two runs at once")
        assert (tmp_path / ".lock").exists()
    assert not list(tmp_path.iterdir())


def test_or_waited_for(tmp_path):
    other = contextlib.ExitStack()
    other.enter_context(train.alone(tmp_path))
    threading.Timer(0.5, other.close).start()
    train.wait_for_another(tmp_path)
    with train.alone(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_nothing_is_left_where_there_was_nothing_to_wait_for(tmp_path):
    train.wait_for_another(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_run_holds_its_work_directory(world, tmp_path):
    """`config.json` is written where it begins."""
    _, fields = world
    arguments = commands.command("train", fields, config=CONFIG, workdir=tmp_path)
    with subprocess.Popen(arguments, cwd=commands.ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not (tmp_path / "config.json").exists():
            time.sleep(0.1)
        with locks.held(tmp_path / ".lock") as free:
            assert not free
        process.kill()


def test_a_work_directory_may_be_a_string(finished):
    """As notebooks call it; all steps are done, and nothing is loaded for that."""
    code = "run = config.of_run(pathlib.Path(sys.argv[1])); train.train(run, sys.argv[1], preemption.Preemption(''))"
    imports = "import pathlib, sys; from pea_jax import config, preemption, train"
    result = commands.run([sys.executable, "-c", f"{imports}; {code}", str(finished)])
    assert result.returncode == 0 and "all 12 steps are done" in result.stdout, result.stderr


def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path):
    module = """import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests in the background has it ignored
os.kill(os.getpid(), signal.SIGINT)
"""
    (tmp_path / "ml_collections.py").write_text(module)
    arguments = [sys.executable, "-m", "pea_jax.train"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(arguments, cwd=commands.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "error: interrupted\n")


def test_letters_that_the_screen_has_not_end_no_run():
    """As with LANG=en_US, which is ISO-8859-1."""
    letters = r"\u043a\u043e\u0442 cat"
    program = f"from pea_jax import command, report; command.run(lambda: report.console.print('{letters}'))"
    environment = dict(os.environ, PYTHONIOENCODING="iso-8859-1")
    arguments = [sys.executable, "-c", program]
    said = subprocess.run(arguments, cwd=commands.ROOT, env=environment, capture_output=True, check=False)
    assert (said.returncode, said.stdout) == (0, b"??? cat\n"), said.stderr


def test_a_killed_run_ends_with_the_same_bits(world, finished):
    """Asked to end after step 4, killed after step 9, then left alone."""
    folder, fields = world
    workdir = folder / "killed"
    programs = shutil.copytree(os.environ["JAX_COMPILATION_CACHE_DIR"], folder / "xla")
    compiled = set(programs.glob("jit_train_step-*-cache"))
    arguments = commands.command("train", fields, config=CONFIG, workdir=workdir)
    for killed_at, how in ((4, signal.SIGTERM), (9, signal.SIGKILL)):
        process = subprocess.Popen(
            arguments,
            cwd=commands.ROOT,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(programs)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while not any(line["step"] >= killed_at for line in entries(workdir)):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.005)
        process.send_signal(how)
        said, _ = process.communicate()
        if how == signal.SIGTERM:
            assert process.returncode == 0 and "of 12 is saved; the same command goes on from there" in said, said
    result = commands.run_forked(arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    name = "adapter/adapter.safetensors"
    assert (workdir / name).read_bytes() == (finished / name).read_bytes()
    assert [line["step"] for line in entries(workdir)] == list(range(1, 13))
    losses = [[line["loss"] for line in entries(run)] for run in (workdir, finished)]
    assert losses[0] == losses[1]
    assert compiled and set(programs.glob("jit_train_step-*-cache")) == compiled  # nothing anew


def test_a_run_goes_on_with_what_another_machine_needs(world, finished):
    """From step 9, with the bits that it would have had; what would be learnt otherwise is refused."""
    folder, fields = world
    workdir = shutil.copytree(finished, folder / "elsewhere")
    shutil.rmtree(workdir / "adapter")
    shutil.rmtree(workdir / "checkpoints" / "12")
    changed = {**fields, "data.timeout": 900.0, "data.num_threads": 3, "checkpoint.keep": 5}
    other = commands.command("train", {**changed, "seed": 1}, config=CONFIG, workdir=workdir)
    refused = commands.run_forked(other)
    message = f"error: {workdir}/config.json: this run was started with another seed; use a new --workdir\n"
    assert (refused.returncode, refused.stderr) == (1, message)
    result = commands.run_forked(commands.command("train", changed, config=CONFIG, workdir=workdir))
    assert result.returncode == 0 and "resuming at step 9" in result.stdout, result.stdout + result.stderr
    name = "adapter/adapter.safetensors"
    assert (workdir / name).read_bytes() == (finished / name).read_bytes()
    assert json.loads((workdir / "config.json").read_text())["data"]["timeout"] == 900
    shutil.rmtree(workdir / "checkpoints")
    fewer = commands.command("train", {**fields, "num_steps": 1, "batch_size": 2}, config=CONFIG, workdir=workdir)
    refused = commands.run_forked(fewer)
    assert refused.returncode == 1 and "started with another batch_size, num_steps;" in refused.stderr
    shutil.rmtree(workdir / "adapter")  # as where memory was too short for the first step
    result = commands.run_forked(fewer)
    assert result.returncode == 0 and [line["step"] for line in entries(workdir)] == [1], result.stdout + result.stderr


def test_the_last_pictures_are_drawn_where_a_run_ended_before_them(world, finished):
    """Those of a last step at which none would have been due otherwise."""
    folder, fields = world
    workdir, last = shutil.copytree(finished, folder / "unseen"), "samples/step_12.png"
    shutil.rmtree(workdir / "adapter")
    (workdir / last).unlink()
    config = json.loads((workdir / "config.json").read_text())
    config["sample"]["every"] = 5
    (workdir / "config.json").write_text(json.dumps(config))
    arguments = commands.command("train", {**fields, "sample.every": 5}, config=CONFIG, workdir=workdir)
    result = commands.run_forked(arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (workdir / last).read_bytes() == (finished / last).read_bytes()


def test_pixels_and_token_ids_in_the_step_give_the_losses_of_the_cache(world, finished):
    folder, fields = world
    fields = {**fields, "data.cached": False, "num_steps": 2}
    result = commands.run_forked(commands.command("train", fields, config=CONFIG, workdir=folder / "raw"))
    assert result.returncode == 0, result.stdout + result.stderr
    for raw, cached in zip(entries(folder / "raw"), entries(finished)[:2], strict=True):
        np.testing.assert_allclose(raw["loss"], cached["loss"], rtol=1e-3)


def test_export_of_the_last_checkpoint_is_the_adapter(finished, tmp_path):
    """Also of a run over more devices than are here."""
    (run := tmp_path / "run").mkdir()
    (run / "checkpoints").symlink_to(finished / "checkpoints")
    fields = json.loads((finished / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(fields | {"mesh": dict(data=2, fsdp=512)}))
    result = commands.run_forked(commands.command("export", {}, workdir=run, out=tmp_path / "a"))
    assert result.returncode == 0, result.stderr
    name = "adapter.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (finished / "adapter" / name).read_bytes()


def test_generate_draws_one_picture_and_a_grid(finished, tmp_path):
    flags = dict(adapter=finished / "adapter", out=tmp_path / "apple.png", steps=2)
    one = commands.command("generate", {}, prompt="красное яблоко", **flags)
    result = commands.run_forked(one)
    assert result.returncode == 0, result.stderr
    assert Image.open(tmp_path / "apple.png").size == (64, 64)
    result = commands.run_forked([*one, "--prompt=собака"])
    assert result.returncode == 0, result.stderr
    assert Image.open(tmp_path / "apple.png").size[1] > 128


def test_evaluate_reports_every_system_on_both_splits(world, finished, tmp_path):
    _, fields = world
    flags = dict(config=CONFIG, adapter=finished / "adapter", out=tmp_path / "report.json")
    behind = shutil.copytree(finished / "adapter", tmp_path / "behind")
    config = json.loads((behind / "config.json").read_text())
    config["text_encoder"]["hidden_state"] -= 1  # another layer of the same encoder
    (behind / "config.json").write_text(json.dumps(config))
    arguments = commands.command("evaluate", fields, **flags, compare=f"twin={finished / 'adapter'}")
    result = commands.run_forked([*arguments, f"--compare=behind={behind}"])
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "report.json").read_text())["results"]
    names = ["English teacher", "adapter", "twin", "behind", "untrained"]
    assert [(r["split"], r["system"]) for r in results] == [(s, n) for s in ("seen", "held out") for n in names]
    by_name = {r["system"]: r for r in results if r["split"] == "seen"}
    assert by_name["adapter"]["distance"] == by_name["twin"]["distance"]
    assert by_name["adapter"]["distance"] != by_name["untrained"]["distance"]
    assert by_name["adapter"]["distance"] != by_name["behind"]["distance"]
    assert by_name["English teacher"]["distance"] is None
    assert "English teacher" in result.stdout


def test_training_moves_every_tensor(finished):
    tensors = load_file(finished / "adapter" / "adapter.safetensors")
    assert all(np.isfinite(value).all() for value in tensors.values())
    assert np.any(tensors["layernorm.bias"] != 0) and np.any(tensors["layernorm.weight"] != 1)
