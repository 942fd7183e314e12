"""CLIPs that transformers does not know, at toy size, in the layouts of their published files, and their networks."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

from pea_jax.weights import open_clip
from tests import language_clips, openai_clips, tiny_tokenizers
from tests.tiny_text_models import random_bert, random_xlm_roberta, randomise

SIDE, PROJECTION, SCALE = 12, 20, 2.5
TINY_XLM_R = dict(
    language_clips.SMALL, vocab_size=3002, max_position_embeddings=90, type_vocab_size=1, layer_norm_eps=1e-5
)
VISION_CFG = dict(image_size=SIDE, layers=2, width=48, head_width=16, patch_size=4, mlp_ratio=3.0)
KINDS = (
    "ruCLIP", "cn_clip", "open_clip", "open_clip linear, quick", "rinna CLIP", "rinna CLIP bert", "rinna CLOOB",
)  # fmt: skip


class Oracle(NamedTuple):
    """The networks of a CLIP in PyTorch, their vectors not yet of length 1."""

    text_embeds: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of ids and mask
    image_embeds: Callable[[torch.Tensor], torch.Tensor]  # of pixels `[B, 3, side, side]`
    logit_scale: float


def save(folder: pathlib.Path, kind: str) -> Oracle:
    """A folder of that kind; XLM-R of open_clip needs `TINY_XLM_R` in `open_clip.NETWORKS`."""
    folder.mkdir(parents=True, exist_ok=True)
    library, _, rest = kind.partition(" ")
    makers = {"ruCLIP": _ruclip, "cn_clip": _cn_clip, "open_clip": _open_clip, "rinna": _rinna}
    return makers[library](folder, rest)


def _ruclip(folder: pathlib.Path, _: str) -> Oracle:
    text, vision = openai_clips.save_ruclip(folder, SCALE)
    return Oracle(lambda ids, mask: text(ids).text_embeds, vision, float(np.exp(SCALE)))


def _cn_clip(folder: pathlib.Path, _: str) -> Oracle:
    """In half precision, as published."""
    lines = language_clips.word_pieces(True)
    language_clips.save_vocabulary(folder, lines)
    text = random_bert(
        vocab_size=len(lines), hidden_size=128, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    vision = _vision(width=128, heads=2)
    projection = torch.randn(128, PROJECTION, generator=torch.Generator().manual_seed(2)).half().float()
    text, vision = (module.half().float() for module in (text, vision))
    tensors = {f"bert.{name}": tensor for name, tensor in text.state_dict().items()}
    tensors |= {f"visual.{name}": tensor for name, tensor in vision.state_dict().items()}
    tensors |= {"text_projection": projection, "logit_scale": torch.tensor(SCALE)}
    state = {f"module.{name}": tensor.half() for name, tensor in tensors.items()}
    torch.save({"epoch": 3, "name": "a run", "state_dict": state}, folder / "clip_cn_vit-b-16.pt")
    return Oracle(lambda ids, mask: _first(text, ids, mask) @ projection, vision, float(np.exp(SCALE)))


def _open_clip(folder: pathlib.Path, rest: str) -> Oracle:
    tiny_tokenizers.xlm_r_sentencepiece(folder)
    linear = rest.startswith("linear")
    text, width = random_xlm_roberta(**TINY_XLM_R), TINY_XLM_R["hidden_size"]
    hidden = (width + PROJECTION) // 2
    wide = [torch.nn.Linear(width, PROJECTION, bias=False)]
    if not linear:
        wide = [torch.nn.Linear(width, hidden, bias=False), torch.nn.GELU()]
        wide += [torch.nn.Linear(hidden, PROJECTION, bias=False)]
    projection = randomise(wide[0] if linear else torch.nn.Sequential(*wide))
    activation = openai_clips.QuickGELU if linear else torch.nn.GELU
    vision = _vision(width=48, heads=3, wide=144, activation=activation)
    tensors = {f"text.transformer.{name}": tensor for name, tensor in text.state_dict().items()}
    tensors |= {f"text.proj.{name}": tensor for name, tensor in projection.state_dict().items()}
    tensors |= {f"visual.{name}": tensor for name, tensor in vision.state_dict().items()}
    torch.save({**tensors, "logit_scale": torch.tensor(SCALE)}, folder / "open_clip_pytorch_model.bin")
    config = dict(embed_dim=PROJECTION, vision_cfg=VISION_CFG, text_cfg={"hf_model_name": "xlm-roberta-large"})
    if linear:
        config["text_cfg"] |= {"hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}
        config["quick_gelu"] = True
    (folder / open_clip.CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3}}))

    def text_embeds(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = text(input_ids=ids, attention_mask=mask).last_hidden_state
        return projection((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))

    return Oracle(text_embeds, vision, float(np.exp(SCALE)))


def _rinna(folder: pathlib.Path, rest: str) -> Oracle:
    (folder / "spiece.model").write_bytes(tiny_tokenizers.japanese_sentencepiece())
    kind = transformers.BertModel if "bert" in rest else transformers.RobertaModel
    fields = dict(language_clips.SMALL, max_position_embeddings=82, layer_norm_eps=1e-5)
    fields |= dict(vocab_size=tiny_tokenizers.JAPANESE_SIZE, pad_token_id=tiny_tokenizers.JAPANESE_PAD)
    text = randomise(kind(kind.config_class(**fields), add_pooling_layer=False))
    shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    vision_config = transformers.ViTConfig(**shape, image_size=SIDE, patch_size=4)
    vision = randomise(transformers.ViTModel(vision_config, add_pooling_layer=False))
    texts, visuals = (randomise(torch.nn.Linear(width, PROJECTION, bias=False)) for width in (24, 32))
    # Saved alone, the ViT has the names of every version of transformers.
    vision.save_pretrained(folder / "vit")
    tensors = {f"vision_model.{name}": tensor for name, tensor in load_file(folder / "vit/model.safetensors").items()}
    tensors |= {f"text_model.{name}": tensor for name, tensor in text.state_dict().items()}
    tensors |= {"text_projection.weight": texts.weight, "visual_projection.weight": visuals.weight}
    name = "CLOOB" if "CLOOB" in rest else "CLIP"
    config = dict(architectures=[f"{name}Model"], model_type=name.lower(), projection_dim=PROJECTION)
    if name == "CLOOB":
        config["init_inv_tau"] = 30.0
    else:
        tensors["logit_scale"] = torch.tensor(SCALE)
    halves = dict(text_config=text.config.to_dict(), vision_config=vision_config.to_dict())
    (folder / "config.json").write_text(json.dumps({**config, **halves}))
    torch.save(tensors, folder / "pytorch_model.bin")

    def text_embeds(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return texts(_first(text, ids, mask, position_ids=torch.arange(ids.shape[1])[None]))

    def image_embeds(pixels: torch.Tensor) -> torch.Tensor:
        return visuals(vision(pixels).last_hidden_state[:, 0])

    return Oracle(text_embeds, image_embeds, 30.0 if name == "CLOOB" else float(np.exp(SCALE)))


def _first(text: Any, ids: torch.Tensor, mask: torch.Tensor, **inputs: Any) -> torch.Tensor:
    return text(input_ids=ids, attention_mask=mask, **inputs).last_hidden_state[:, 0]


def _vision(**options: Any) -> openai_clips.VisionTransformer:
    return randomise(
        openai_clips.VisionTransformer(layers=2, side=SIDE, patch=4, projection=PROJECTION, **options), seed=1
    )
