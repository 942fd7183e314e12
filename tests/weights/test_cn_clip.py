"""Chinese-CLIP's original `.pt`, written as its training script does, against the BERT in it."""

import pathlib

import pytest
import torch
import transformers

from pea_jax.errors import PeaError
from pea_jax.text.encoders import load_text_encoder
from pea_jax.weights.cn_clip import fields_from_shapes
from pea_jax.weights.text_networks import load_cn_clip
from tests import language_clips as clips
from tests.tiny_text_models import random_bert

NAME = "clip_cn_vit-b-16.pt"
LINES = clips.word_pieces(True)
CONFIG = dict(
    vocab_size=len(LINES), hidden_size=128, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=64,
)  # fmt: skip


def save(folder: pathlib.Path, model: torch.nn.Module, name: str = NAME) -> None:
    others = {
        "visual.conv1.weight": torch.zeros(8, 3, 4, 4),
        "bert.pooler.dense.weight": torch.zeros(4, 4),
        "text_projection": torch.zeros(128, 20),
        "logit_scale": torch.zeros(()),
    }
    tensors = others | {f"bert.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in tensors.items()}}, folder / name)


def test_states(tmp_path: pathlib.Path):
    """Half precision, as published; layers, widths and heads come from the shapes."""
    model = random_bert(**CONFIG).half()
    save(tmp_path, model)
    clips.save_vocabulary(tmp_path, LINES)
    encoder = load_text_encoder(tmp_path)
    assert (encoder.architecture, encoder.context_length, encoder.hidden_size) == ("cn_clip", 52, 128)
    clips.assert_states(encoder, model.float(), "zh")
    assert load_text_encoder(tmp_path, context_length=64).context_length == 64


@pytest.mark.parametrize(
    "fields",
    [
        dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16),  # ViT-H
        dict(),  # ViT-L and ViT-B
        dict(num_hidden_layers=3),  # ResNet-50
    ],
)
def test_real_sizes(fields: dict):
    """The published models' configurations are found again from the shapes of their tensors."""
    config = transformers.BertConfig(vocab_size=21128, **fields)
    with torch.device("meta"):
        tensors = transformers.BertModel(config, add_pooling_layer=False).state_dict()
    found = fields_from_shapes(tensors, source="test")
    assert {name: getattr(config, name) for name in found} == found


def test_one_checkpoint_is_needed(tmp_path: pathlib.Path):
    with pytest.raises(PeaError, match=r"must hold one clip_cn_\*.pt \(found none\)"):
        load_cn_clip(tmp_path)
    for name in (NAME, "clip_cn_vit-h-14.pt"):
        save(tmp_path, random_bert(**CONFIG), name)
    with pytest.raises(PeaError, match="found clip_cn_vit-b-16.pt, clip_cn_vit-h-14.pt"):
        load_cn_clip(tmp_path)


def test_another_checkpoint_is_refused(tmp_path: pathlib.Path):
    torch.save({"state_dict": {"module.visual.proj": torch.zeros(2, 2)}}, tmp_path / NAME)
    with pytest.raises(PeaError, match=rf"{NAME}: not a Chinese-CLIP checkpoint .no bert.embeddings.word"):
        load_cn_clip(tmp_path)
