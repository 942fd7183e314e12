"""ImageReward against BLIP's networks in transformers, from a file with the names of the published one."""

import pathlib

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from pea_jax.errors import PeaError
from pea_jax.judging import image_reward
from pea_jax.judging.image_reward import ImageRewards
from pea_jax.models.bert import BertConfig
from pea_jax.models.clip_vision import CLIPVisionConfig
from pea_jax.models.image_reward import MEAN, STD, ImageReward, ImageRewardConfig
from pea_jax.models.layers import abstract
from pea_jax.weights.image_reward import PUBLISHED, load_image_reward, renamed
from tests.language_clips import shapes
from tests.tiny_text_models import VOCABULARY, clip_tokenizer, randomise

SIDE, LENGTH = 16, 9
VISION = dict(hidden_size=24, intermediate_size=96, num_attention_heads=2, num_hidden_layers=2, patch_size=4)
TEXT = dict(hidden_size=20, intermediate_size=36, num_attention_heads=2, num_hidden_layers=3, vocab_size=VOCABULARY)
HEAD = (12, 8, 6, 4, 1)
CONFIG = ImageRewardConfig(
    CLIPVisionConfig(**VISION, image_size=SIDE, hidden_act="gelu", layer_norm_eps=1e-6),
    BertConfig(**TEXT, max_position_embeddings=40),
    HEAD,
)
TEXTS = ["a red apple", "a dog in the snow", ""]
OF_LAYERS = (("layer_norm1", "norm1"), ("layer_norm2", "norm2"), ("self_attn.qkv", "attn.qkv"))
SINGLE = {"embeddings.class_embedding": "cls_token", "embeddings.position_embedding": "pos_embed"}


class Oracle(torch.nn.Module):
    """The published network, of parts that others keep."""

    def __init__(self, config: ImageRewardConfig):
        super().__init__()
        fields, width = vars(config.vision), config.vision.hidden_size
        names = (*VISION, "image_size", "layer_norm_eps")
        vision = transformers.BlipVisionConfig(**{name: fields[name] for name in names})
        fields, names = vars(config.text), (*TEXT, "max_position_embeddings")
        text = transformers.BlipTextConfig(**{name: fields[name] for name in names}, encoder_hidden_size=width)
        self.vision = transformers.models.blip.modeling_blip.BlipVisionModel(vision)
        self.text = transformers.models.blip.modeling_blip_text.BlipTextModel(text, add_pooling_layer=False)
        layers = [
            torch.nn.Linear(a, b)
            for a, b in zip((config.text.hidden_size, *config.head[:-1]), config.head, strict=True)
        ]
        for place in (1, 3, 5):  # as published
            layers.insert(place, torch.nn.Dropout(0.2))
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, pixels, input_ids, attention_mask):
        picture = self.vision(pixels).last_hidden_state
        states = self.text(input_ids, attention_mask, encoder_hidden_states=picture).last_hidden_state
        return (self.layers(states[:, 0])[:, 0] - MEAN) / STD

    def published(self) -> dict[str, torch.Tensor]:
        """Its tensors by the names of the file, with what that has besides."""
        tensors = {"blip.vision_proj.weight": torch.ones(8, 24), "blip.text_proj.bias": torch.ones(8)}
        tensors["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
        for name, tensor in self.vision.state_dict().items():
            tensors["blip.visual_encoder." + _of_vision(name)] = tensor
        tensors |= {f"blip.text_encoder.{name}": tensor for name, tensor in self.text.state_dict().items()}
        return tensors | {f"mlp.layers.{name}": tensor for name, tensor in self.layers.state_dict().items()}


def _of_vision(name: str) -> str:
    if name in SINGLE:
        return SINGLE[name]
    for theirs, published in (*OF_LAYERS, ("self_attn.projection", "attn.proj"), ("encoder.layers", "blocks")):
        name = name.replace(theirs, published)
    return name.replace("embeddings.patch_embedding", "patch_embed.proj").replace("post_layernorm", "norm")


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return randomise(Oracle(CONFIG)).eval()


@pytest.fixture
def folder(oracle, tmp_path: pathlib.Path, monkeypatch) -> pathlib.Path:
    """The file, and a tokenizer."""
    torch.save(oracle.published(), tmp_path / "ImageReward.pt")
    clip_tokenizer().save_pretrained(tmp_path / "tokenizer")
    monkeypatch.setattr(image_reward, "load_image_reward", lambda path, mesh: load_image_reward(path, mesh, CONFIG))
    monkeypatch.setattr(image_reward, "LENGTH", LENGTH)
    return tmp_path


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)) for _ in range(count)]


def test_rewards_agree(oracle, folder):
    """Two pictures of each text; the texts are of different lengths, and one is empty."""
    found = ImageRewards(folder / "ImageReward.pt", folder / "tokenizer")(TEXTS, pictures(6), 2)
    tokens = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")(
        [text for text in TEXTS for _ in range(2)],
        padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt",
    )  # fmt: skip
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = (np.stack(pictures(6)) / 255 - mean) / std
    with torch.no_grad():
        expected = oracle(
            torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32), tokens.input_ids, tokens.attention_mask
        ).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(found.reshape(-1), expected, atol=1e-4 * expected.std())


def test_a_wide_picture_is_cut_as_torchvision_cuts_it(folder):
    """Of three pixels too many, one and a half on each side, it leaves out two on the left: it rounds to even."""
    wide = Image.fromarray(np.random.default_rng(2).integers(0, 256, (SIDE, SIDE + 3, 3)).astype(np.uint8))
    rewards = ImageRewards(folder / "ImageReward.pt", folder / "tokenizer")
    assert rewards(TEXTS[:1], [wide]) == rewards(TEXTS[:1], [wide.crop((2, 0, SIDE + 2, SIDE))])


def test_more_than_one_program_takes(folder):
    """70 pictures are two rounds; each text keeps its own."""
    rewards = ImageRewards(folder / "ImageReward.pt", folder / "tokenizer")
    texts, drawn = [TEXTS[i % 2] for i in range(35)], pictures(70)
    found = rewards(texts, iter(drawn), 2)
    assert found.shape == (35, 2) and rewards([], []).shape == (0, 1)
    np.testing.assert_allclose(found[33:], rewards(texts[33:], drawn[66:], 2), rtol=1e-4, atol=1e-5)


def test_the_published_network_has_the_published_shapes():
    """Of its 446 million parameters none is missing, none left over."""
    with torch.device("meta"):
        published = Oracle(PUBLISHED).published()
    loaded = {name: tuple(tensor.shape) for name, tensor in renamed(published).items()}
    assert shapes(abstract(lambda: ImageReward(PUBLISHED))) == loaded


def test_the_file_is_missing_or_another(oracle, folder):
    with pytest.raises(PeaError, match="hf download THUDM/ImageReward"):
        load_image_reward(folder / "absent.pt")
    tensors = oracle.published()
    del tensors["blip.text_encoder.encoder.layer.1.crossattention.self.key.weight"]
    torch.save(tensors, folder / "other.pt")
    with pytest.raises(
        PeaError, match=r"other\.pt.*text_encoder\.encoder\.layer\.1\.crossattention\.self\.key\.weight"
    ):
        load_image_reward(folder / "other.pt", config=CONFIG)
