"""XLM-R in open_clip's files, against the transformers model that open_clip wraps."""

import json
import pathlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pea_jax.errors import PeaError
from pea_jax.weights import open_clip
from pea_jax.weights.text_networks import load_open_clip
from tests.tiny_text_models import assert_close, random_xlm_roberta
from tests.torch_oracle import compiled

TINY = dict(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=14, type_vocab_size=1, layer_norm_eps=1e-5,
)  # fmt: skip


def write(folder: pathlib.Path, file: str, name: str = "xlm-roberta-large") -> torch.nn.Module:
    """A folder as open_clip publishes it, its vision half and projections cut to one number; returns the text tower."""
    reference = random_xlm_roberta(**TINY)
    tensors = {f"text.transformer.{name}": value.contiguous() for name, value in reference.state_dict().items()}
    tensors["text.transformer.embeddings.position_ids"] = torch.arange(14)[None]
    others = ("visual.conv1.weight", "text.proj.0.weight", "text.proj.2.weight", "logit_scale")
    tensors |= {other: torch.zeros(1) for other in others}
    (save_file if file.endswith("safetensors") else torch.save)(tensors, folder / file)
    text = {"hf_model_name": name, "hf_tokenizer_name": name, "hf_pooler_type": "mean_pooler"}
    (folder / open_clip.CONFIG).write_text(json.dumps({"model_cfg": {"embed_dim": 1024, "text_cfg": text}}))
    return reference


@pytest.mark.parametrize(
    "file", ["open_clip_pytorch_model.bin", "open_clip_pytorch_model.safetensors", "open_clip_model.safetensors"]
)
def test_token_states_agree(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, file: str):
    monkeypatch.setitem(open_clip.NETWORKS, "xlm-roberta-large", open_clip.LARGE | TINY)
    reference = write(tmp_path, file)
    ids = np.array([[0, 7, 9, 11, 2, 1, 1], [0, 5, 2, 1, 1, 1, 1]])
    mask = (ids != 1).astype(np.int32)
    expected = reference(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), output_hidden_states=True)
    last, features = compiled(load_open_clip(tmp_path))(ids, mask)
    assert_close(last, expected.last_hidden_state)
    for ours, theirs in zip(features["hidden_states"], expected.hidden_states, strict=True):
        assert_close(ours, theirs)


def test_other_networks_are_refused(tmp_path: pathlib.Path):
    write(tmp_path, "open_clip_pytorch_model.bin", name="roberta-base")
    with pytest.raises(PeaError, match=f"{open_clip.CONFIG}: text_cfg.hf_model_name='roberta-base' is not known"):
        load_open_clip(tmp_path)
    (tmp_path / open_clip.CONFIG).write_text('{"model_cfg": {"text_cfg": {"width": 512}}}')
    with pytest.raises(PeaError, match="not open_clip's config of a text encoder from the Hub"):
        load_open_clip(tmp_path)
