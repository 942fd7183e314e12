"""The comparison with PyTorch: both sides compute the same loss, and every measure runs, on a toy."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from benchmarks import published, step, step_measures
from benchmarks.process import Failed
from benchmarks.random_models import random_models
from benchmarks.step_bars import bars
from benchmarks.step_measures import Comparison
from benchmarks.step_rows import Rows
from benchmarks.step_sides import make_side
from benchmarks.step_torch import RECIPES, TorchSide
from benchmarks.step_work import Work
from pea_jax import mesh as meshes
from pea_jax.distill import models
from pea_jax.distill.latents import NoisySample
from pea_jax.distill.task import DistillationTask
from pea_jax.weights.torch_names import to_torch_names
from tests.torch_oracle import nhwc

BUCKET, OTHER, ROWS = (16, 16), (24, 16), 2
FIELDS = ["dtype=float32", "text_encoder.context_length=6", "adapter.hidden_dim=10", "condition_dropout=0.0"]
FIELDS += ["data.buckets=((16, 16), (24, 16))", "data.bucket_weights=(0.75, 0.25)"]


def work() -> Work:
    return Work.of("configs/ru.py", FIELDS, "tiny", ROWS)


class GivenNoise(DistillationTask):
    """Our task on noisy samples that come with the batch."""

    def noisy_sample(self, frozen, batch, *_):
        return batch["noisy"]


@pytest.fixture(scope="module")
def ours():
    """The loss and gradient of our step, its frozen trees and the adapter."""
    made, mesh = work(), meshes.make_mesh(devices=jax.devices()[:1])
    frozen_models = random_models(made, mesh, cached=True)
    adapter = models.new_adapter(made.config, frozen_models)
    task = GivenNoise(**vars(models.make_task(made.config, frozen_models, adapter, mesh)))
    step = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
    return step, models.frozen_trees(frozen_models, cached=True), adapter


@pytest.mark.parametrize("recipe", ["published", "eager", "tuned", "tuned-checkpointing"])
def test_every_pytorch_side_has_the_loss_and_gradient_of_our_step(ours, recipe):
    step, frozen, adapter = ours
    with torch.compiler.set_stance("force_eager"):
        side = TorchSide(work(), RECIPES[recipe])
        for denoiser in (side.student, side.teacher):
            if denoiser is not None:
                denoiser.unet.load_state_dict(tensors(frozen["unet"]), strict=True)
        side.adapter.load_state_dict(tensors(adapter), strict=True)
        inputs = side.inputs(side.host_batch(BUCKET, ROWS))
        expected, _ = published.loss(side.student, side.adapter, inputs, teacher=side.teacher)
        expected.backward()
    assert (next(side.student.unet.parameters()).grad is None) == RECIPES[recipe].frozen
    batch = work().batch(BUCKET, ROWS, cached=True)
    states = {name: inputs[name].numpy() for name in ("states", "prompt_embeds", "pooled_prompt_embeds")}
    assert RECIPES[recipe].cached == np.array_equal(states["states"], batch["states"])
    noisy = NoisySample(nhwc(inputs["sample"]), inputs["timesteps"].numpy().astype(np.int32), nhwc(inputs["target"]))
    (loss, _), gradient = step(nnx.state(adapter), frozen, {**batch, **states, "noisy": noisy}, jax.random.key(0))
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-4)
    for name, value in to_torch_names(gradient).items():
        theirs = dict(side.adapter.named_parameters())[name].grad.numpy()
        np.testing.assert_allclose(value, theirs, atol=1e-3 * np.abs(theirs).max())


def tensors(model) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(x)) for name, x in to_torch_names(model).items()}


def test_our_side_trains_with_encoders_in_the_step(monkeypatch):
    monkeypatch.setattr("pea_jax.command.prepare_devices", lambda: None)  # which must come before all of JAX
    side = make_side("pea_jax-uncached", work())
    prepared = side.prepare(BUCKET, ROWS)
    first = side.round(BUCKET, ROWS, 1)
    assert first["seconds"] > 0 and first["peak"] > 0
    assert prepared["planned"] > side.device()["frozen"] > 0 and prepared["operations"] > 1e6


class Pretended:
    """In place of our side, whose programs take long to compile."""

    def device(self):
        return dict(name="cpu", capacity=None, frozen=0)

    def compile(self, shapes):
        pass

    def plan(self, bucket, rows):
        return {rows: 10**10 * rows, 2 * rows: 2 * 10**10 * rows}

    def prepare(self, bucket, rows, steps=2):
        return dict(seconds=1.0, operations=1e9, planned=100)

    def round(self, bucket, rows, steps):
        return dict(seconds=1e-4, peak=100)

    def try_batch(self, bucket, rows):
        if rows > 5:
            raise MemoryError
        return 10**10 * rows


class InThisProcess:
    """In place of `Process`."""

    def __init__(self, make, name, work, **_):
        self._side = Pretended() if name.startswith("pea_jax") else make(name, work)
        self._begun = []

    def begin(self, *call):
        self._begun.append(call)

    def result(self, by=None):
        return self.call(*self._begun.pop(0))

    def call(self, method, *arguments):
        if method == "matmul_rate":
            return 1e12
        try:
            return getattr(self._side, method)(*arguments)
        except MemoryError as error:
            raise Failed("MemoryError", out_of_memory=True) from error

    def seconds(self) -> float:
        return 3.0

    def close(self) -> None:
        pass


def test_every_measure_runs_and_is_written_at_once(tmp_path: pathlib.Path, monkeypatch, capsys):
    monkeypatch.setattr(step_measures, "Process", InThisProcess)
    command = ["step", "--config", "configs/ru.py", "--networks", "tiny", "--batch_size", str(ROWS), "--rounds", "2"]
    command += [f"--field={field}" for field in FIELDS]
    command += ["--groups", "eager,pea_jax", "published,pea_jax-uncached", "--mixed", "eager,pea_jax"]
    command += ["--measures", "speed", "mix", "start", "largest", "--steps", "1", "--trials", "2"]
    command += ["--searched", "published", "pea_jax", "--capacity", "50", "--out", str(tmp_path / "rows.json")]
    monkeypatch.setattr("sys.argv", command)
    step.main()
    result = json.loads((tmp_path / "rows.json").read_text())
    assert result["versions"]["jax"] and result["batch_size"] == ROWS
    assert not [row for row in result["rows"] if "failed" in row]
    steps = {(row["side"], tuple(row["bucket"])): row for row in result["rows"] if row["measure"] == "step"}
    assert len(steps) == 6 and {len(row["rounds"]) for row in steps.values()} == {2}
    assert 0 < steps["published", BUCKET]["mfu"] < steps["pea_jax", OTHER]["mfu"]
    largest = {row["side"]: row["rows"] for row in result["rows"] if row["measure"] == "largest batch"}
    assert largest["published"] > ROWS and largest["pea_jax"] == 5
    shown = capsys.readouterr().out
    assert "met: images/s of pea_jax against published" in shown and "not measured: images/s against tuned" in shown


def test_a_side_that_fails_is_a_row_and_the_others_go_on(tmp_path: pathlib.Path, monkeypatch):
    def fails(self, *_):
        raise MemoryError

    def once(self, *_):
        monkeypatch.setattr(Pretended, "round", fails)
        return dict(seconds=1.0, peak=1)

    monkeypatch.setattr(step_measures, "Process", InThisProcess)
    monkeypatch.setattr(Pretended, "prepare", fails)
    rows = Rows(tmp_path / "rows.json", dict(batch_size=ROWS))
    comparison = Comparison(work(), rows, BUCKET, {BUCKET: 1.0}, rounds=1, steps=1, deadline=1e9, cache="")
    comparison.speed(["pea_jax", "eager"], [BUCKET])
    assert [row["side"] for row in rows.of("step")] == ["eager"]
    assert [(row["side"], row["failed"]) for row in rows.rows if "failed" in row] == [("pea_jax", "MemoryError")]
    monkeypatch.undo()
    monkeypatch.setattr(step_measures, "Process", InThisProcess)
    monkeypatch.setattr(Pretended, "round", once)
    dataclasses.replace(comparison, rounds=3).speed(["pea_jax"], [OTHER])
    assert rows.one("step", side="pea_jax", bucket=OTHER)["rounds"] == [1.0]  # what it did before it failed


def test_what_was_found_before_the_time_ended_is_kept(tmp_path: pathlib.Path, monkeypatch):
    tried = []

    def until_the_third(self, bucket, rows):
        tried.append(rows)
        if len(tried) == 3:
            raise Failed("out of time")
        return 10**10 * rows

    monkeypatch.setattr(step_measures, "Process", InThisProcess)
    monkeypatch.setattr(Pretended, "try_batch", until_the_third)
    rows = Rows(tmp_path / "rows.json", dict(batch_size=ROWS))
    comparison = Comparison(work(), rows, BUCKET, {BUCKET: 1.0}, rounds=1, steps=1, deadline=1e9, cache="")
    comparison.largest_batch("pea_jax", trials=5, capacity=500e9)
    written = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row.get("failed") for row in written] == [None, "out of time"]
    assert rows.one("largest batch", side="pea_jax")["rows"] == 48 and tried == [4, 48, 50]


def test_a_side_is_written_while_the_others_have_their_turn(tmp_path: pathlib.Path, monkeypatch):
    path = tmp_path / "rows.json"
    seen = []

    def looking(self, bucket, rows, steps):
        written = json.loads(path.read_text())["rows"]
        seen.append([(row["side"], len(row["rounds"])) for row in written if row["measure"] == "step"])
        return dict(seconds=1.0, peak=1)

    monkeypatch.setattr(step_measures, "Process", InThisProcess)
    monkeypatch.setattr(Pretended, "round", looking)
    rows = Rows(path, dict(batch_size=ROWS))
    with Comparison(work(), rows, BUCKET, {BUCKET: 1.0}, rounds=2, steps=1, deadline=1e9, cache="") as comparison:
        comparison.speed(["pea_jax", "pea_jax-remat"], [BUCKET], planned=["pea_jax-int8"])
    first, second = "pea_jax", "pea_jax-remat"
    assert seen == [[], [(first, 1)], [(first, 1), (second, 1)], [(second, 1), (first, 2)]]
    assert comparison.planned == {"pea_jax-int8": {ROWS: 10**10 * ROWS, 2 * ROWS: 2 * 10**10 * ROWS}}


def test_bars_and_mix_are_arithmetic(tmp_path: pathlib.Path):
    rows = Rows(tmp_path / "rows.json", dict(batch_size=8))
    first, second, third = (640, 640), (768, 512), (512, 768)
    for side, seconds in dict(tuned=0.3, pea_jax=0.2, published=0.8).items():
        fields = dict(side=side, images_per_second=8 / seconds, rounds=[seconds], peak=seconds * 1e11)
        rows.add(measure="step", bucket=first, seconds=seconds, **fields)
        if side != "published":
            rows.add(measure="step", bucket=second, seconds=2 * seconds, **fields)
    rows.add(measure="step", side="tuned", bucket=third, failed="out of time")
    mixed = rows.of_mix(["tuned", "pea_jax"], {first: 0.3, second: 0.5, third: 0.2})
    assert mixed["share"] == pytest.approx(0.8) and mixed["buckets"] == 2
    assert mixed["images_per_second"]["pea_jax"] == pytest.approx(8 * 0.8 / (0.3 * 0.2 + 0.5 * 0.4))
    lines = list(bars(rows, first, {first: 0.3, second: 0.5, third: 0.2}))
    assert "met: images/s against tuned 1.50 (at least 1.2)" in lines
    assert "met: images/s of pea_jax against published 4.00 (at least 2.5)" in lines
    assert "met: peak memory against published 0.25 (at most 0.5)" in lines
    assert "not measured: seconds to the first step, warm cache (at most 60)" in lines
