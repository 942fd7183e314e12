"""The layouts of LoRA files: kohya's (LCM-LoRA too), diffusers' of every age, peft's names among them, and peft's own.

Whatever its layout, a file says for some layers of a network: add `alpha / rank * up @ down` to the weight.
"""

import pathlib
import re
import types
from collections.abc import Iterable
from typing import Any, NamedTuple

from pea_jax.errors import PeaError
from pea_jax.weights.checkpoint_files import open_file
from pea_jax.weights.lora_alphas import peft_alphas, scalar, stated_alphas
from pea_jax.weights.stored import StoredArray

KOHYA = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2"}
KOHYA_KEY = re.compile(rf"({'|'.join(KOHYA)})(.+)\.(lora_down\.weight|lora_up\.weight|alpha)")
# diffusers knows these layers by the first implementation's names alone.
ADD_EMBEDDING = {"add_embedding_linear_1": "label_emb_0_0", "add_embedding_linear_2": "label_emb_0_2"}
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
# What peft's `save_pretrained` puts before every name; which network it is of it does not say.
PEFT_PREFIX = "base_model.model."
PEFT_KEY = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.weight|alpha)")
ROLES = {"lora_A.weight": "down", "lora_B.weight": "up", "lora_down.weight": "down", "lora_up.weight": "up"}
# By a part of their keys, ^ before these and a dot after: methods that are not `W + up @ down`.
REFUSED = {
    "lora_mid": "LoCon with a middle factor",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    ".diff.": "full weight differences",
    ".diff_b.": "full weight differences",
    "lora_B.bias": "LoRA with biases",
    "lora_up.bias": "LoRA with biases",
    ".w_norm.": "LyCORIS of norms",
    "ia3_": "IA3",
    ".on_input.": "IA3",
    "^emb_params.": "textual inversion",
    "^clip_g.": "textual inversion",
    "^clip_l.": "textual inversion",
    "^ip_adapter.": "IP-Adapter",
    "^image_proj.": "IP-Adapter",
}


class Layer(NamedTuple):
    """Factors `down` `[rank, in, ...]` and `up` `[out, rank, ...]` of one layer; `alpha` None means the rank."""

    down: StoredArray
    up: StoredArray
    alpha: float | None


def read_layers(path: pathlib.Path, component: str, layers_per_block: int) -> dict[str, Layer]:
    """The layers that a file has for one component, by the names of their modules in diffusers or transformers.

    Args:
      path: safetensors or pickled.
      component: of `COMPONENTS`.
      layers_per_block: of the UNet: kohya counts the blocks of SDXL as the first implementation did.

    Raises:
      PeaError: the file is broken, of a method other than LoRA, or has keys that fit no layout.
    """
    tensors = open_layers(path)
    entries: dict[str, dict[str, StoredArray]] = {}
    own = [key for key in tensors if component_of(key) == component]
    names = _diffusers_names(path, own, component, layers_per_block)
    for key in own:
        module, role = names[key]
        if role in entries.setdefault(module, {}):
            raise PeaError(f"{path}: two tensors for {role} of {module}")
        entries[module][role] = tensors[key]
    if halves := sorted(module for module, roles in entries.items() if not roles.keys() >= {"down", "up"}):
        raise PeaError(f"{path}: one of the two factors is missing for {', '.join(halves[:8])}")
    of_peft = any(key.startswith(PEFT_PREFIX) for key in own)
    alpha_of = peft_alphas(path) if of_peft else stated_alphas(path, component)
    return {
        module: Layer(
            roles["down"], roles["up"], scalar(path, roles["alpha"]) if "alpha" in roles else alpha_of(module)
        )
        for module, roles in entries.items()
    }


def open_layers(path: pathlib.Path) -> dict[str, StoredArray]:
    """All tensors of a LoRA file.

    Raises:
      PeaError: the file is broken, of a method other than LoRA, or has keys of no known component.
    """
    tensors = dict(open_file(path))
    for part, method in REFUSED.items():
        if key := next((key for key in tensors if part in f"^{key}."), None):
            raise PeaError(f"{path}: {method} ({key}) is not supported, only LoRA")
    if strangers := sorted(key for key in tensors if component_of(key) is None):
        raise PeaError(f"{path}: {len(strangers)} keys of no known LoRA layout ({', '.join(strangers[:8])})")
    return tensors


def component_of(key: str) -> str | None:
    """The network that a key belongs to, None if it is not a LoRA's."""
    if kohya := KOHYA_KEY.fullmatch(key):
        return KOHYA[kohya[1]]
    if not re.search(r"[._]lora[._]|lora_linear_layer|\.alpha$", key):
        return None
    if key.startswith(PEFT_PREFIX):  # a text encoder may be either of two
        return None if key.startswith(PEFT_PREFIX + "text_model.") else "unet"
    head = key.split(".")[0]
    # The oldest files, of attention processors only, do not name the UNet.
    return head if head in COMPONENTS else "unet" if re.match(r"(down|up)_blocks\.|mid_block\.", key) else None


def _diffusers_names(
    path: pathlib.Path, keys: Iterable[str], component: str, layers_per_block: int
) -> dict[str, tuple[str, str]]:
    """(module, role) of every key, the roles being down, up and alpha."""
    if not (keys := list(keys)):
        return {}
    conversion, dicts = _diffusers(path)
    unet = types.SimpleNamespace(layers_per_block=layers_per_block)
    renamed = {key: key for key in keys}
    try:
        if any(key.startswith("lora_unet_") for key in keys):
            renamed = conversion._maybe_map_sgm_blocks_to_diffusers({key: key for key in keys}, unet)
        result = {}
        for new, key in renamed.items():
            kohya = KOHYA_KEY.fullmatch(new)
            plain = (
                _from_kohya(conversion, kohya[1], kohya[2], kohya[3])
                if kohya
                else new.removeprefix(PEFT_PREFIX).removeprefix(component + ".")
            )
            result[key] = _module_and_role(_from_older(dicts, plain, component))
    except (ValueError, IndexError, KeyError) as error:
        raise PeaError(f"{path}: diffusers cannot translate its keys ({' '.join(str(error).split())[:200]})") from error
    if lost := sorted(set(keys) - result.keys()):
        raise PeaError(f"{path}: {len(lost)} keys say the same as others in other words ({', '.join(lost[:8])})")
    return result


def _from_kohya(conversion: Any, prefix: str, name: str, role: str) -> str:
    """`(lora_unet_, mid_block_attentions_0_proj_in, alpha)` to `mid_block.attentions.0.proj_in.alpha`, nearly."""
    name = ADD_EMBEDDING.get(name, name)
    down = f"{prefix}{name}.lora_down.weight"
    if prefix == "lora_unet_":
        new = conversion._convert_unet_lora_key(down)
    else:
        new = conversion._convert_text_encoder_lora_key(down, prefix + name)
    return new.replace(".down.", ".up.") if role == "lora_up.weight" else new + ".alpha" if role == "alpha" else new


def _from_older(dicts: Any, key: str, component: str) -> str:
    """A key of any of diffusers' layouts in peft's words."""
    older = {**dicts.DIFFUSERS_OLD_TO_PEFT, **dicts.DIFFUSERS_TO_PEFT, ".lora.down": ".lora_A", ".lora.up": ".lora_B"}
    return next(iter(dicts.convert_state_dict({key: None}, dicts.UNET_TO_DIFFUSERS if component == "unet" else older)))


def _module_and_role(key: str) -> tuple[str, str]:
    key = re.sub(r"\.lora_A\.weight\.alpha$", ".alpha", key)
    if not (match := PEFT_KEY.fullmatch(key)):
        raise ValueError(key)
    return match[1], ROLES.get(match[2], "alpha")


def _diffusers(path: pathlib.Path) -> tuple[Any, Any]:
    try:
        from diffusers.loaders import lora_conversion_utils
        from diffusers.utils import state_dict_utils
    except ImportError as error:
        raise PeaError(
            f'{path}: a LoRA, whose names diffusers translates: run `pip install "pea_jax[torch,transformers]"`'
        ) from error
    return lora_conversion_utils, state_dict_utils
