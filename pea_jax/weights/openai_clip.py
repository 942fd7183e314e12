"""CLIP by OpenAI's own names, as ruCLIP, cn_clip and open_clip keep it; and the text encoder of ruCLIP folders."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.weights.checkpoint_files import open_checkpoint
from pea_jax.weights.config_files import read_config
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.tensor_parts import Transposed, thirds
from pea_jax.weights.text_files import CLIP, Build, TextFiles

IGNORED = re.compile(r"visual\..*|logit_scale")
Names = tuple[tuple[str, str], ...]
LAYERS: Names = (
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"encoder.layers.\1.self_attn.out_proj."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"encoder.layers.\1.mlp.fc1."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"encoder.layers.\1.mlp.fc2."),
)
TEXT: Names = (
    *LAYERS,
    (r"token_embedding\.", "embeddings.token_embedding."),
    (r"positional_embedding$", "embeddings.position_embedding.weight"),
    (r"ln_final\.", "final_layer_norm."),
    (r"text_projection$", "text_projection.weight"),
)
VISION: Names = (
    *LAYERS,
    (r"conv1\.", "embeddings.patch_embedding."),
    (r"class_embedding$", "embeddings.class_embedding"),
    (r"positional_embedding$", "embeddings.position_embedding.weight"),
    (r"ln_pre\.", "pre_layrnorm."),  # so spelt in transformers
    (r"ln_post\.", "post_layernorm."),
    (r"proj$", "visual_projection.weight"),
)
VISUAL = "visual."
PROJECTIONS = ("text_projection", "proj")  # `[in, out]`, where layers are `[out, in]`
JOINT = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")
FIELDS = {
    "vocab_size": "vocab_size",
    "transformer_width": "hidden_size",
    "transformer_layers": "num_hidden_layers",
    "transformer_heads": "num_attention_heads",
    "context_length": "max_position_embeddings",
    "embed_dim": "projection_dim",
}
RUCLIP_EOS = 3


def open_ruclip(folder: pathlib.Path, build: Build) -> TextFiles:
    """The text encoder of a ruCLIP folder (`config.json`, `pytorch_model.bin`); the picture half is passed over.

    Raises:
      PeaError: if a file is missing or broken.
    """
    network = read_config(folder, lambda config: build(clip_fields(config)))
    path, tensors = open_checkpoint(folder, "model")
    return TextFiles(network, to_transformers_names(tensors), str(path))


def clip_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of CLIP's config in transformers, from ruCLIP's `config.json`.

    Raises:
      PeaError: naming the fields that it lacks.
    """
    if missing := sorted(FIELDS.keys() - config.keys()):
        raise PeaError(f"not the config of a ruCLIP model: no {', '.join(missing)}")
    fields = {ours: config[theirs] for theirs, ours in FIELDS.items()}
    wide = 4 * fields["hidden_size"]
    return {**fields, "model_type": CLIP, "intermediate_size": wide, "eos_token_id": RUCLIP_EOS}


def to_transformers_names(tensors: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """The text encoder's tensors as `CLIPTextModelWithProjection` names and lays them out."""
    return _convert({name: tensor for name, tensor in tensors.items() if not IGNORED.fullmatch(name)}, TEXT)


def to_transformers_vision_names(tensors: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """The picture encoder's, which are under `visual.`, as `CLIPVisionModelWithProjection` names and lays them out."""
    own = {name.removeprefix(VISUAL): tensor for name, tensor in tensors.items() if name.startswith(VISUAL)}
    return _convert(own, VISION)


def _convert(tensors: Mapping[str, StoredArray], names: Names) -> dict[str, StoredArray]:
    result: dict[str, StoredArray] = {}
    for name, tensor in tensors.items():
        if joint := JOINT.fullmatch(name):
            for part, third in zip("qkv", thirds(tensor), strict=True):
                result[f"encoder.layers.{joint[1]}.self_attn.{part}_proj.{joint[2]}"] = third
        else:
            result[_renamed(name, names)] = Transposed(tensor) if name in PROJECTIONS else tensor
    return result


def _renamed(name: str, names: Names) -> str:
    for pattern, replacement in names:
        name, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            break
    return name
