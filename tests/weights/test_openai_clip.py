"""The text encoder of ruCLIP against its PyTorch module, written from the published names and forward pass."""

import json
import pathlib
import types

import numpy as np
import pytest
import torch
from flax import nnx

from pea_jax.errors import PeaError
from pea_jax.text.encoders import load_text_encoder
from pea_jax.weights.openai_clip import clip_fields, to_transformers_names
from pea_jax.weights.text_networks import build, load_ruclip
from tests.language_clips import assert_states, shapes
from tests.prompts import prompts
from tests.tiny_text_models import assert_close, randomise
from tests.torch_oracle import compiled

CONFIG = dict(
    embed_dim=20, image_resolution=8, vision_layers=1, vision_width=8, vision_patch_size=4, context_length=30,
    vocab_size=400, transformer_width=24, transformer_heads=3, transformer_layers=2,
)  # fmt: skip
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "text" / "youtokentome.json"


class QuickGELU(torch.nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(torch.nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.mlp = torch.nn.Sequential()
        self.mlp.add_module("c_fc", torch.nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", torch.nn.Linear(4 * width, width))

    def forward(self, x):
        y = self.ln_1(x)
        causal = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=causal)[0]
        return x + self.mlp(self.ln_2(x))


class RuCLIPText(torch.nn.Module):
    """The text half under ruCLIP's names; OpenAI's CLIP has the same ones."""

    def __init__(self, *, width: int, heads: int, layers: int, length: int, vocabulary: int, projection: int):
        super().__init__()
        self.transformer = torch.nn.Module()
        self.transformer.resblocks = torch.nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.token_embedding = torch.nn.Embedding(vocabulary, width)
        self.positional_embedding = torch.nn.Parameter(torch.zeros(length, width))
        self.ln_final = torch.nn.LayerNorm(width)
        self.text_projection = torch.nn.Parameter(torch.zeros(width, projection))

    def forward(self, ids, output_hidden_states=True):
        states = [self.token_embedding(ids) + self.positional_embedding]
        for block in self.transformer.resblocks:
            states.append(block(states[-1]))
        last = self.ln_final(states[-1])
        ends = last[torch.arange(len(ids)), torch.where(ids == 3)[1]] @ self.text_projection
        return types.SimpleNamespace(last_hidden_state=last, hidden_states=states, text_embeds=ends)


def ruclip(config: dict) -> RuCLIPText:
    names = dict(
        width="transformer_width", heads="transformer_heads", layers="transformer_layers", length="context_length",
        vocabulary="vocab_size", projection="embed_dim",
    )  # fmt: skip
    return RuCLIPText(**{ours: config[theirs] for ours, theirs in names.items()})


def save(folder: pathlib.Path) -> None:
    """As ai-forever publishes it."""
    (folder / "bpe.model").write_text(json.loads(GOLDEN.read_text())["model"])
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors = randomise(ruclip(CONFIG)).state_dict()
    others = {"visual.conv1.weight": torch.zeros(8, 3, 4, 4), "logit_scale": torch.zeros(())}
    torch.save({**tensors, **others}, folder / "pytorch_model.bin")


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    save(tmp_path)
    return tmp_path


def test_states(folder: pathlib.Path):
    """Padding is not masked: ruCLIP has no mask but the causal one."""
    encoder = load_text_encoder(folder)
    assert (encoder.architecture, encoder.context_length, encoder.hidden_size) == ("ruCLIP", 30, 24)
    oracle = randomise(ruclip(CONFIG))
    assert_states(encoder, oracle, "ru", masked=False)
    ids = encoder.tokenize(prompts("ru")[50:60])["input_ids"]
    _, features = compiled(load_ruclip(folder))(ids)
    with torch.no_grad():
        assert_close(features["text_embeds"], oracle(torch.from_numpy(ids).long()).text_embeds)


def test_description(folder: pathlib.Path):
    description = load_text_encoder(folder).describe()
    assert (description["pad_token_id"], description["masked"], description["padding_side"]) == (0, False, "right")


def test_parts_of_a_tensor_are_read_alone():
    stored = {"text_projection": np.arange(6.0).reshape(2, 3)}
    stored["transformer.resblocks.7.attn.in_proj_weight"] = np.arange(24.0).reshape(6, 4)
    tensors = to_transformers_names(stored)
    assert tensors["text_projection.weight"].shape == (3, 2)
    np.testing.assert_array_equal(tensors["text_projection.weight"][1:, :], [[1, 4], [2, 5]])
    key = tensors["encoder.layers.7.self_attn.k_proj.weight"]
    assert key.shape == (2, 4)
    np.testing.assert_array_equal(key[:, 2:], [[10, 11], [14, 15]])
    np.testing.assert_array_equal(key[1:, :], [[12, 13, 14, 15]])


def test_real_size():
    """ViT-L/14's text half, OpenAI's own sizes: every name and shape of PyTorch's, none left over."""
    config = CONFIG | dict(
        transformer_width=768, transformer_heads=12, transformer_layers=12, context_length=77, vocab_size=49408,
        embed_dim=768,
    )  # fmt: skip
    with torch.device("meta"):
        module = ruclip(config)
    wanted = to_transformers_names(dict(module.state_dict()))
    network = nnx.eval_shape(build(clip_fields(config), with_projection=True))
    assert shapes(network) == {name: tuple(tensor.shape) for name, tensor in wanted.items()}


@pytest.mark.parametrize(
    ("field", "message"),
    [("transformer_width", "not the config of a ruCLIP model: no transformer_width"), ("vocab_size", "no vocab_size")],
)
def test_incomplete_config_is_named(folder: pathlib.Path, field: str, message: str):
    config = {name: value for name, value in CONFIG.items() if name != field}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(PeaError, match=message):
        load_text_encoder(folder)


def test_unknown_tensors_are_named(folder: pathlib.Path):
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(tensors | {"transformer.resblocks.0.ln_3.weight": torch.zeros(24)}, folder / "pytorch_model.bin")
    with pytest.raises(PeaError, match=r"1 unexpected \(transformer.resblocks.0.ln_3.weight\)"):
        load_ruclip(folder)
