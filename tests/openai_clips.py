"""CLIP in OpenAI's own layout at toy size, in plain PyTorch: its layers, and a folder as ruCLIP has it.

Written from the published names and forward passes (ai-forever/ru-clip, OFA-Sys/Chinese-CLIP, mlfoundations/open_clip).
"""

import json
import pathlib
import types
from typing import Any

import torch

from tests.tiny_text_models import randomise

CONFIG = dict(
    embed_dim=20, image_resolution=12, vision_layers=2, vision_width=128, vision_patch_size=4, context_length=30,
    vocab_size=400, transformer_width=24, transformer_heads=3, transformer_layers=2,
)  # fmt: skip
GOLDEN = pathlib.Path(__file__).resolve().parent / "text" / "youtokentome.json"


class QuickGELU(torch.nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(torch.nn.Module):
    def __init__(self, width: int, heads: int, *, wide: int, activation: torch.nn.Module, causal: bool):
        super().__init__()
        self.causal = causal
        self.attn = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.mlp = torch.nn.Sequential()
        self.mlp.add_module("c_fc", torch.nn.Linear(width, wide))
        self.mlp.add_module("gelu", activation)
        self.mlp.add_module("c_proj", torch.nn.Linear(wide, width))

    def forward(self, x):
        y = self.ln_1(x)
        mask = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1) if self.causal else None
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


def transformer(
    width: int,
    heads: int,
    layers: int,
    *,
    wide: int | None = None,
    activation: type[torch.nn.Module] = QuickGELU,
    causal: bool = False,
) -> torch.nn.Module:
    """The stack of layers, `resblocks`."""
    result, shape = torch.nn.Module(), dict(wide=wide or 4 * width, causal=causal)
    blocks = (Block(width, heads, activation=activation(), **shape) for _ in range(layers))
    result.resblocks = torch.nn.Sequential(*blocks)
    return result


class RuCLIPText(torch.nn.Module):
    """The text half under ruCLIP's names; OpenAI's CLIP has the same ones."""

    def __init__(self, *, width: int, heads: int, layers: int, length: int, vocabulary: int, projection: int):
        super().__init__()
        self.transformer = transformer(width, heads, layers, causal=True)
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


class VisionTransformer(torch.nn.Module):
    """The picture encoder, `[B, 3, side, side]` to `[B, projection]`."""

    def __init__(self, *, width: int, heads: int, layers: int, side: int, patch: int, projection: int, **options: Any):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = torch.nn.Parameter(torch.zeros(width))
        self.positional_embedding = torch.nn.Parameter(torch.zeros((side // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.transformer = transformer(width, heads, layers, **options)
        self.proj = torch.nn.Parameter(torch.zeros(width, projection))

    def forward(self, pixels):
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        return self.ln_post(self.transformer.resblocks(x)[:, 0]) @ self.proj


def ruclip_vision(config: dict) -> VisionTransformer:
    width = config["vision_width"]
    return VisionTransformer(
        width=width,
        heads=width // 64,
        layers=config["vision_layers"],
        side=config["image_resolution"],
        patch=config["vision_patch_size"],
        projection=config["embed_dim"],
    )


def save_ruclip(folder: pathlib.Path, scale: float = 2.5) -> tuple[RuCLIPText, VisionTransformer]:
    """As ai-forever publishes it; returns both halves."""
    text, vision = randomise(ruclip(CONFIG)), randomise(ruclip_vision(CONFIG), seed=1)
    (folder / "bpe.model").write_text(json.loads(GOLDEN.read_text())["model"])
    (folder / "config.json").write_text(json.dumps(CONFIG))
    visual = {f"visual.{name}": tensor for name, tensor in vision.state_dict().items()}
    torch.save({**text.state_dict(), **visual, "logit_scale": torch.tensor(scale)}, folder / "pytorch_model.bin")
    return text, vision
