"""Whole CLIPs at toy size, of every family that can judge, as transformers saves them."""

import pathlib
from typing import Any

import numpy as np
import transformers
from PIL import Image

from tests import language_clips
from tests.tiny_text_models import CONTEXT, VOCABULARY, clip_tokenizer, randomise

SIDE = 12
LAYERS = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)
VISION = dict(LAYERS, image_size=SIDE, patch_size=4)
TEXT = dict(LAYERS, vocab_size=VOCABULARY)
CLIP_TEXT = dict(TEXT, max_position_embeddings=CONTEXT, eos_token_id=VOCABULARY - 1)
BERT_TEXT = dict(TEXT, max_position_embeddings=CONTEXT + 4)
KINDS = ("CLIP", "MetaClip2", "ChineseCLIP", "AltCLIP", "dual encoder", "dual encoder in Flax")


def save_clip(folder: pathlib.Path, kind: str = "CLIP") -> Any:
    """Model, tokenizer and preprocessing; returns the model."""
    folder.mkdir(parents=True, exist_ok=True)
    model = randomise(_model(kind))
    if kind.endswith("Flax"):
        language_clips.save_as_flax(folder, model)
    else:
        model.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    size = dict(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    transformers.CLIPImageProcessorPil(**size).save_pretrained(folder)
    return model


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Noise, of different sizes."""
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (SIDE + 3 * i, 40, 3)).astype(np.uint8)) for i in range(count)]


def _model(kind: str) -> Any:
    if kind.startswith("dual encoder"):
        vision, text = transformers.CLIPVisionConfig(**VISION), transformers.BertConfig(**BERT_TEXT)
        return language_clips.dual_encoder(text, vision, projection_dim=20)
    own = dict(AltCLIP=dict(BERT_TEXT, project_dim=28), ChineseCLIP=BERT_TEXT)
    configs = dict(text_config=own.get(kind, CLIP_TEXT), vision_config=VISION, projection_dim=20)
    return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**configs))
