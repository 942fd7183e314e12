"""The picture half of open_clip's own files, and the projection of its texts."""

import pathlib
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from pea_jax.models.config_fields import check_choice, check_kinds, read_fields
from pea_jax.weights.open_clip import CONFIG, read_open_clip_config, stem_in
from pea_jax.weights.openai_vision import vision_tensors
from pea_jax.weights.text_files import open_tensors
from pea_jax.weights.vision_files import Heads, VisionFiles, logit_scale, matrices

# `CLIPVisionCfg` of open_clip/model.py: fields that are read, and their defaults; ...
DEFAULTS: Mapping[str, Any] = dict(layers=12, width=768, head_width=64, mlp_ratio=4.0, patch_size=16, image_size=224)
# ... fields that are accepted at these values alone, the last two of old versions; ...
OFF = (
    "attentional_pool", "no_ln_pre", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn",
    "scale_fc", "global_average_pool", "input_patchnorm",
)  # fmt: skip
SUPPORTED: Mapping[str, tuple] = {
    **{name: (False,) for name in OFF},
    "timm_model_name": (None, ""),
    "ls_init_value": (None,),
    "pool_type": ("tok",),
    "pos_embed_type": ("learnable", "sin_cos_2d"),  # the weights have the values of both
    "final_ln_after_pool": (False, True),  # the same for the first state alone
    "block_type": (None, "default"),
    "act_kwargs": (None, {}),
    "norm_kwargs": (None, {}),
}
# ... and what is for training, or for what is not supported.
PASSED_OVER = (
    "patch_dropout", "output_tokens", "attn_pooler_queries", "attn_pooler_heads", "timm_model_pretrained", "timm_pool",
    "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path",
)  # fmt: skip
POOLER = "mean_pooler"
PROJECTIONS = {"mlp": ("text.proj.0.weight", "text.proj.2.weight"), "linear": ("text.proj.weight",)}


def open_open_clip_vision(folder: pathlib.Path) -> VisionFiles:
    """The ViT in `folder` (`open_clip_config.json` and the weights), and what its texts are projected by.

    Raises:
      PeaError: if a file is missing or broken, the picture encoder is another network than CLIP's ViT, or the texts
        are pooled in another way than by the mean of their states.
    """
    model, _ = read_open_clip_config(folder)
    try:
        config, projections = _vision_config(model), _text_projections(model["text_cfg"])
    except PeaError as error:
        raise PeaError(f"{folder / CONFIG}: {error}") from error
    source, stored = open_tensors(folder, stem=stem_in(folder))
    text_projections = tuple(matrix.T for matrix in matrices(stored, projections, source=source))
    heads = Heads(text_projections, logit_scale(stored, source=source))
    return VisionFiles(CLIPVision, config, vision_tensors(stored, source=source), source, heads)


def _vision_config(model: Mapping[str, Any]) -> CLIPVisionConfig:
    if not isinstance(vision := model.get("vision_cfg"), Mapping):
        raise PeaError("no vision_cfg in it: there is nothing that looks at pictures")
    if isinstance(layers := vision.get("layers"), list):
        raise PeaError(f"vision_cfg.layers={layers} is a ResNet, which cannot judge here; take a ViT")
    known = {name: value for name, value in vision.items() if name not in PASSED_OVER}
    fields = read_fields(known, defaults=DEFAULTS, supported=SUPPORTED)
    check_kinds(fields, DEFAULTS)
    width = fields["width"]
    return CLIPVisionConfig.from_dict(
        dict(
            hidden_size=width,
            intermediate_size=int(width * fields["mlp_ratio"]),
            num_hidden_layers=fields["layers"],
            num_attention_heads=width // fields["head_width"],
            hidden_act="quick_gelu" if model.get("quick_gelu") else "gelu",
            image_size=fields["image_size"],
            patch_size=fields["patch_size"],
            projection_dim=model.get("embed_dim"),
        )
    )


def _text_projections(text: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the matrices; the fields had other names in old versions."""
    pooler = text.get("hf_pooler_type", text.get("pooler_type", POOLER))
    check_choice("text_cfg.hf_pooler_type", [pooler], (POOLER,))
    kind = text.get("hf_proj_type", text.get("proj", "mlp"))
    check_choice("text_cfg.hf_proj_type", [kind], (*PROJECTIONS, None))
    return PROJECTIONS.get(str(kind), ())
