"""The picture half of rinna's Japanese `CLIPModel` and `CLOOBModel` (rinnakk/japanese-clip): a ViT of transformers."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.models.config_fields import check_numbers
from pea_jax.models.vit import ViTConfig, ViTWithProjection
from pea_jax.weights.clip_vision import TEXT_HALF, vision_fields
from pea_jax.weights.config_files import read_config
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.tensor_parts import Part
from pea_jax.weights.text_files import open_tensors, own_tensors
from pea_jax.weights.vision_files import Heads, VisionFiles, logit_scale, matrices

LAYER = r"^vision_model\.encoder\.layer\.(\d+)\."
OURS = r"vision_model.encoder.layers.\1."
NAMES = (
    (r"^vision_model\.embeddings\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^vision_model\.embeddings\.position_embeddings$", "vision_model.embeddings.position_embedding.weight"),
    (r"^vision_model\.embeddings\.patch_embeddings\.projection\.", "vision_model.embeddings.patch_embedding."),
    (r"^vision_model\.layernorm\.", "vision_model.post_layernorm."),
    (rf"{LAYER}layernorm_before\.", rf"{OURS}layer_norm1."),
    (rf"{LAYER}layernorm_after\.", rf"{OURS}layer_norm2."),
    (rf"{LAYER}attention\.attention\.query\.", rf"{OURS}self_attn.q_proj."),
    (rf"{LAYER}attention\.attention\.key\.", rf"{OURS}self_attn.k_proj."),
    (rf"{LAYER}attention\.attention\.value\.", rf"{OURS}self_attn.v_proj."),
    (rf"{LAYER}attention\.output\.dense\.", rf"{OURS}self_attn.out_proj."),
    (rf"{LAYER}intermediate\.dense\.", rf"{OURS}mlp.fc1."),
    (rf"{LAYER}output\.dense\.", rf"{OURS}mlp.fc2."),
)
LEADING = {"embeddings.cls_token": (0, 0), "embeddings.position_embeddings": (0,)}  # axes of one entry in front


def open_rinna_vision(folder: pathlib.Path) -> VisionFiles:
    """The ViT and the projections of a folder of both halves.

    Raises:
      PeaError: if a file is missing or broken, or the picture encoder is another network.
    """
    config, inv_tau = read_config(folder, _parse)
    source, stored = open_tensors(folder)
    (text_projection,) = matrices(stored, ["text_projection.weight"], source=source)
    # CLOOB was trained with a fixed temperature, which only its config states.
    scale = logit_scale(stored, source=source) if inv_tau is None else inv_tau
    tensors = to_our_names(own_tensors(stored, prefix="", ignored=TEXT_HALF))
    return VisionFiles(ViTWithProjection, config, tensors, source, Heads((text_projection.T,), scale))


def to_our_names(tensors: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """By the names and in the shapes of `models.vit.ViTWithProjection`."""
    result: dict[str, StoredArray] = {}
    for name, tensor in tensors.items():
        leading = LEADING.get(name.removeprefix("vision_model."), ())
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        result[name] = Part(tensor, leading) if leading and len(tensor.shape) == 3 else tensor
    return result


def _parse(config: Mapping[str, Any]) -> tuple[ViTConfig, float | None]:
    fields = vision_fields(config)
    kind = fields.get("model_type")
    if kind != "vit":
        raise PeaError(f"vision_config.model_type={kind!r} is not supported beside this text encoder (only 'vit')")
    projection_dim = config.get("projection_dim", ViTConfig.projection_dim)
    inv_tau = config.get("init_inv_tau")
    if inv_tau is not None:
        check_numbers(config, ["init_inv_tau"], positive=True)
    return ViTConfig.from_dict({**fields, "projection_dim": projection_dim}), inv_tau
