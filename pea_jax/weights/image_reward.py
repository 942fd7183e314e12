"""Loads ImageReward from the file that its authors published."""

import pathlib
import re
from collections.abc import Mapping

from jax.sharding import Mesh, PartitionSpec

from pea_jax.models.image_reward import ImageReward, ImageRewardConfig
from pea_jax.models.layers import abstract
from pea_jax.weights.checkpoint_files import open_file
from pea_jax.weights.locations import published_file
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.tensor_parts import Part, thirds
from pea_jax.weights.torch_names import fill

DOWNLOAD = "hf download THUDM/ImageReward ImageReward.pt --local-dir ."
IGNORED = re.compile(r"blip\.(vision_proj|text_proj)\..*|.*\.position_ids")
PUBLISHED = ImageRewardConfig()
BLOCK = r"^visual_encoder\.blocks\.(\d+)\."
NAMES = (
    (r"^blip\.", ""),
    (r"^visual_encoder\.cls_token$", "visual_encoder.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "visual_encoder.embeddings.position_embedding.weight"),
    (r"^visual_encoder\.patch_embed\.proj\.", "visual_encoder.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "visual_encoder.post_layernorm."),
    (rf"{BLOCK}norm([12])\.", r"visual_encoder.encoder.layers.\1.layer_norm\2."),
    (rf"{BLOCK}attn\.proj\.", r"visual_encoder.encoder.layers.\1.self_attn.out_proj."),
    (rf"{BLOCK}", r"visual_encoder.encoder.layers.\1."),
)
JOINT = re.compile(r"(visual_encoder\.encoder\.layers\.\d+)\.attn\.qkv\.(weight|bias)")
HEAD = re.compile(r"mlp\.layers\.(\d+)\.(weight|bias)")


def find_image_reward(path: str | pathlib.Path) -> pathlib.Path:
    """The file.

    Raises:
      PeaError: it is missing, with where it is to be had.
    """
    return published_file(path, "ImageReward", DOWNLOAD, "1.8 GB")


def load_image_reward(
    path: str | pathlib.Path, mesh: Mesh | None = None, config: ImageRewardConfig = PUBLISHED
) -> ImageReward:
    """The network in `ImageReward.pt`, or in the same tensors as safetensors; whole on every device of `mesh`.

    Raises:
      PeaError: the file is missing, with where it is to be had; or it is broken, or of another network.
    """
    path = find_image_reward(path)
    stored = open_file(path)
    model = abstract(lambda: ImageReward(config))
    tensors = renamed(stored)
    return fill(model, tensors, source=str(path), mesh=mesh, partition=lambda name, shape: PartitionSpec())


def renamed(stored: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """By the names of our modules, joint projections taken apart."""
    heads = sorted({int(found[1]) for name in stored if (found := HEAD.fullmatch(name))})  # between them is dropout
    result: dict[str, StoredArray] = {}
    for name, tensor in stored.items():
        if IGNORED.fullmatch(name):
            continue
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        if joint := JOINT.fullmatch(name):
            for part, third in zip("qkv", thirds(tensor), strict=True):
                result[f"{joint[1]}.self_attn.{part}_proj.{joint[2]}"] = third
        elif head := HEAD.fullmatch(name):
            result[f"mlp.{heads.index(int(head[1]))}.{head[2]}"] = tensor
        else:
            leading = name.endswith(".position_embedding.weight") + 2 * name.endswith(".class_embedding")
            result[name] = Part(tensor, (0,) * leading) if leading else tensor
    return result
