"""Conversion to a tensorflow-datasets folder, and reading it, which is `tfds_source`."""

import functools
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import pytest

from pea_jax.data import WebDatasetSource
from pea_jax.data.tfds_source import TfdsSource
from pea_jax.data.to_tfds import convert, main
from pea_jax.errors import BadSample, PeaError

EMOJI = "assets/emoji/emoji-val-00000.tar"


def test_the_command_converts_in_parallel_and_training_reads_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")  # whose screen lacks the folder's letters
    shard, out = tmp_path / "val.tar", str(tmp_path / "выход")
    shard.symlink_to(pathlib.Path(EMOJI).absolute())
    command = [sys.executable, "-m", "pea_jax.data.to_tfds", "--train", str(shard), "--out", out]
    done = subprocess.run([*command, "--workers=2", "--shard_size=80"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "writing train" in done.stdout and "156 samples in train" in done.stdout
    assert len(list(pathlib.Path(out).glob("*train*-of-00002"))) == 2
    before = WebDatasetSource(str(shard))
    after = pickle.loads(pickle.dumps(TfdsSource(out)))
    assert len(after) == len(before) == 156
    for number in range(156):
        one, other = before[number], after[number]
        assert (one.key, one.image, one.record) == (other.key, other.image, other.record)
    assert "tensorflow" not in sys.modules
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1
    told = f"error: {out}: holds a tensorflow-datasets folder already; name another\n"
    assert again.stderr == told.encode("ascii", "backslashreplace").decode()


def test_ctrl_c_ends_all_processes_with_one_line(tmp_path):
    """And one that the system ends is no page of where that was noticed. The corpus is large enough not to be done."""
    corpus = EMOJI.replace("val-00000", "train-00000")
    for ended in ("interrupted", "one of the processes was ended"):
        out = tmp_path / ended
        command = [sys.executable, "-m", "pea_jax.data.to_tfds", "--train", corpus, "--out", str(out), "--shard_size=1"]
        popen = functools.partial(subprocess.Popen, stderr=subprocess.PIPE, text=True, start_new_session=True)
        process = popen([*command, "--workers=2"])
        while not list(out.glob("*-of-*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        if ended == "interrupted":
            os.killpg(process.pid, signal.SIGINT)
        else:
            os.kill(_a_child_that_writes(process.pid), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (130 if ended == "interrupted" else 1)
        assert ended in errors and errors.count("\n") == 1, errors


def _a_child_that_writes(parent: int) -> int:
    children = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    lines = {int(child): pathlib.Path(f"/proc/{child}/cmdline").read_text() for child in children}
    return next(child for child, line in lines.items() if "spawn_main" in line)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out="], "--out '': must be a folder on a disk"),
        (["--out=~/out"], "--out '~/out': must be a folder on a disk"),
        (["--out=gs://bucket/out"], "--out 'gs://bucket/out': must be a folder on a disk"),
        (["--out=out", "--workers=0"], "--workers 0: must be at least 1"),
        (["--out=out", "--shard_size=-3"], "--shard_size -3: must be at least 1"),
        (["--out=out", "--train=b.tar"], "--train has 2 values, of which the last alone"),
    ],
)
def test_flags_that_cannot_be(tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["to_tfds", "--train=a.tar", *flags])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert capsys.readouterr().err.startswith(f"error: {said}") and not list(tmp_path.iterdir())


def test_other_programs_find_flag_sizes_and_scores_in_columns(write_shard, make_sample, tmp_path):
    import tensorflow_datasets as tfds

    record = dict(native=True, aesthetic=0.1, captions={"nested": None}, caption_it=None)
    members = make_sample(3)
    members["json"] = json.dumps(json.loads(members["json"]) | record).encode()
    samples = {"a": make_sample(1), "b": members, "c": make_sample(4, native="false")}
    shard, out = write_shard("a.tar", samples), str(tmp_path / "out")
    assert convert({"train": shard}, out) == {"train": 3}
    assert TfdsSource(out)[1].record == WebDatasetSource(shard)[1].record
    plain, native, written = tfds.builder_from_directory(out).as_data_source("train")
    assert native["image"].shape == (8, 8, 3) and (native["width"], native["height"]) == (8, 8)
    assert bool(native["native"]) and not plain["native"] and not written["native"]
    assert native["captions"]["language"] == [b"en", b"ru"]
    assert native["scores"]["name"] == [b"aesthetic"] and native["scores"]["value"] == [pytest.approx(0.1)]


def test_half_a_surrogate_pair_comes_back_as_it_was(write_shard, make_sample, tmp_path):
    """Texts from the web that were cut in the middle of an emoji."""
    text = json.loads('"cut \\ud83d"')
    written = json.dumps(dict(caption_de=text, title=text, caption_ru="яблоко 1")).encode()
    shard = write_shard("a.tar", {"a": make_sample(1) | {"json": written}})
    convert({"train": shard}, str(tmp_path / "out"))
    record = TfdsSource(str(tmp_path / "out"))[0].record
    assert record["caption_de"] == record["title"] == text and record["caption_ru"] == "яблоко 1"


def test_what_cannot_be_converted(write_shard, shard, make_sample, tmp_path):
    broken = write_shard("b.tar", {"a": make_sample(1), "b": make_sample(2) | {"png": b"no image"}})
    with pytest.raises(BadSample, match=r"b\.tar: sample b: the image cannot be decoded"):
        convert({"train": broken}, str(tmp_path / "out"))
    with pytest.raises(PeaError, match="no samples; leave train out"):
        convert({"train": write_shard("c.tar", {})}, str(tmp_path / "out"))
    with pytest.raises(PeaError, match="cannot be written"):
        convert({"train": shard}, f"{shard}/out")


def test_damaged_folders(shard, tmp_path, monkeypatch):
    out = tmp_path / "out"
    convert({"train": shard}, str(out))
    with pytest.raises(PeaError, match="no split test; there are train"):
        TfdsSource(str(out), "test")
    source, records = TfdsSource(str(out)), next(out.glob("*.array_record-*"))
    assert source.parts[0].count == 23
    data = records.read_bytes()
    place = data.index(b"001") - 200
    records.write_bytes(data[:place] + b"\xff" * 400 + data[place + 400 :])
    with pytest.raises(BadSample, match="out: record 1: cannot be read"):
        TfdsSource(str(out))[1]
    features = json.loads((out / "features.json").read_text())
    del features["featuresDict"]["features"]["record"]
    (out / "features.json").write_text(json.dumps(features))
    with pytest.raises(PeaError, match="no record among its features; convert it"):
        TfdsSource(str(out))
    (out / "features.json").write_text("{")
    with pytest.raises(PeaError, match=r"out: cannot be read \(.*\); convert the data again"):
        TfdsSource(str(out))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(PeaError, match=r"pip install 'pea_jax\[tfds\]'"):
        TfdsSource(str(out))
