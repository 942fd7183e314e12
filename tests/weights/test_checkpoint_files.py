"""Which of the files in a folder is taken, and what is said of a folder that has none or a wrong index."""

import json
import pathlib

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file

from pea_jax.errors import PeaError
from pea_jax.weights.checkpoint_files import open_checkpoint


def save(folder: pathlib.Path, name: str, value: float, key: str = "weight") -> None:
    """One tensor whose value tells which file it came from."""
    if name.endswith(".bin"):
        torch.save({key: torch.tensor([value])}, folder / name)
    else:
        save_file({key: np.array([value], np.float32)}, folder / name)


def index(folder: pathlib.Path, name: str, weight_map: object) -> None:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def taken(folder: pathlib.Path, stem: str = "model") -> tuple[str, dict[str, float]]:
    path, tensors = open_checkpoint(folder, stem)
    return path.name, {name: float(tensor[:,][0]) for name, tensor in tensors.items()}


def test_safetensors_come_first_and_half_precision_last(tmp_path):
    in_order = ["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "pytorch_model.fp16.bin"]
    for value, name in enumerate(in_order):
        save(tmp_path, name, value)
    for value, name in enumerate(in_order):
        assert taken(tmp_path) == (name, {"weight": value})
        (tmp_path / name).unlink()


def test_diffusers_has_one_stem_for_both_formats(tmp_path):
    save(tmp_path, "diffusion_pytorch_model.bin", 5)
    save(tmp_path, "pytorch_model.bin", 6)
    assert taken(tmp_path, "diffusion_pytorch_model") == ("diffusion_pytorch_model.bin", {"weight": 5})


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors.index.json",
        "model.safetensors.index.fp16.json",
        "model.fp16.safetensors.index.json",
        "pytorch_model.bin.index.json",
        "pytorch_model.bin.index.fp16.json",
    ],
)
def test_shards_under_every_name_of_an_index(tmp_path, name):
    suffix = "bin" if ".bin." in name else "safetensors"
    parts = [f"part-{i}.{suffix}" for i in range(2)]
    for value, part in enumerate(parts):
        save(tmp_path, part, value, key=f"layer.{value}")
    index(tmp_path, name, {f"layer.{i}": part for i, part in enumerate(parts)})
    assert taken(tmp_path) == (name, {"layer.0": 0, "layer.1": 1})


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_that_transformers_writes(tmp_path, variant):
    model = transformers.BertModel(transformers.BertConfig(vocab_size=50, hidden_size=8, num_attention_heads=1,
                                                           intermediate_size=8, num_hidden_layers=1))  # fmt: skip
    model.save_pretrained(tmp_path, max_shard_size="2KB", variant=variant)
    path, tensors = open_checkpoint(tmp_path, "model")
    assert path.suffix == ".json"
    assert tensors.keys() == model.state_dict().keys()


def refusal(folder: pathlib.Path) -> str:
    with pytest.raises(PeaError) as error:
        open_checkpoint(folder, "model")
    message = str(error.value)
    assert "\n" not in message and str(folder) in message
    return message


def test_no_weights_at_all(tmp_path):
    assert "neither model.safetensors nor pytorch_model.bin (found nothing)" in refusal(tmp_path)
    assert "found nothing" in refusal(tmp_path / "missing")
    (tmp_path / "config.json").write_text("{}")
    assert "found config.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({"weight": "missing.safetensors"}, "missing.safetensors: no such file"),
        ({"other": "part.safetensors"}, "index and files differ in 2 tensors (other)"),
        ({"weight": "../part.safetensors"}, "'../part.safetensors' is not the name of a file"),
        ({"weight": 3}, "3 is not the name of a file"),
        (["part.safetensors"], "weight_map is no object"),
    ],
)
def test_an_index_that_is_wrong(tmp_path, weight_map, said):
    save(tmp_path, "part.safetensors", 1)
    index(tmp_path, "model.safetensors.index.json", weight_map)
    assert said in refusal(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", "{", "", "[" * 100_000, '{"weight_map": 1}'])
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert "not an index of weight files" in refusal(tmp_path)
