"""Checkpoints with UNet, autoencoder and text encoders in one file, under the names of the first implementation.

diffusers knows how those names translate; it is given stand-ins for the tensors, which stay in the file until a model
is filled with them. What such a file does not say, the configs, comes from the base model or from a given folder.
"""

import pathlib
import re
import types
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.weights.checkpoint_files import open_file
from pea_jax.weights.config_files import one_line
from pea_jax.weights.single_file_configs import BASES, CONFIGS
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.tensor_parts import TorchStandIn

UNET = "model.diffusion_model."
# Where a component lies; an autoencoder that is published alone has no prefix.
PREFIXES = {
    "unet": (UNET,),
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}
# Of no use to the component: buffers, training losses, CLIP's temperature, SD 2's unused last layer and projection.
IGNORED = re.compile(
    r".*\.position_ids|first_stage_model\.(loss|model_ema)\..*|.*\.(logit_scale|attn_mask)"
    r"|cond_stage_model\.model\.(transformer\.resblocks\.23\..*|text_projection)"
)
# Some programs save CLIP ViT-L with the projection that it was trained with; diffusion never used it.
SPARE = re.compile(r"(cond_stage_model|conditioner\.embedders\.0)\.(transformer\.)?text_projection(\.weight)?")

# By tensors of these names, which mean nothing else, trainers say what the UNet predicts, and up to which noise.
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
EDM = ("edm_mean", "edm_vpred.sigma_max")  # Playground v2.5, CosXL


def open_tensors(path: pathlib.Path, component: str) -> dict[str, StoredArray]:
    """All tensors of a single file, safetensors or pickled (`.ckpt`), one component of which is wanted.

    Raises:
      PeaError: it is not readable, or such files have no such component.
    """
    if component not in PREFIXES:
        raise PeaError(f"{path}: a file, where a folder with config.json and weights is needed")
    return dict(open_file(path))


def stated_schedule(path: pathlib.Path) -> dict[str, Any]:
    """The fields of a `scheduler_config.json` that a single file states by its marks; most state none.

    Raises:
      PeaError: it is not readable, or was trained with the noise schedule of EDM.
    """
    tensors = open_tensors(path, "unet")
    if marks := [name for name in EDM if name in tensors]:
        raise PeaError(f"{path}: trained with the noise schedule of EDM ({marks[0]} is in it), which is not supported")
    if V_PREDICTION not in tensors:
        return {}
    rescaled = {"rescale_betas_zero_snr": True} if ZERO_SNR in tensors else {}
    return {"prediction_type": "v_prediction", **rescaled}


def base_config(path: pathlib.Path, tensors: Mapping[str, StoredArray], component: str) -> dict[str, Any]:
    """The config of a component, as of the base model that the checkpoint is a fine-tune of.

    Raises:
      PeaError: the base model cannot be told from the tensors, or is not one of those known here.
    """
    advice = "pass config=FOLDER, a diffusers folder with the config.json files of its base model"
    widths = {tensor.shape[-1] for name, tensor in tensors.items() if re.match(rf"{UNET}.*\.attn2\.to_k\.weight", name)}
    width = widths.pop() if len(widths) == 1 else None
    config = CONFIGS.get(BASES.get(width, ""), {}).get(component) if width else None
    if config is None or "edm_mean" in tensors:
        seen = f"a UNet with text states of width {width}" if width else "no UNet to tell the base model by"
        raise PeaError(f"{path}: the config of its {component} is not known ({seen}); {advice}")
    if component == "unet" and (conv_in := tensors.get(f"{UNET}input_blocks.0.0.weight")) is not None:
        return config | {"in_channels": conv_in.shape[1]}
    return config


def convert(
    path: pathlib.Path, tensors: Mapping[str, StoredArray], component: str, config: Mapping[str, Any]
) -> dict[str, StoredArray]:
    """The tensors of one component by their diffusers and transformers names, still in the file.

    Raises:
      PeaError: the file has none, has some that diffusers does not know, or diffusers is not installed.
    """
    own = {name for name in tensors if name.startswith(PREFIXES[component]) and not SPARE.fullmatch(name)}
    if component == "vae" and not own and "encoder.conv_in.weight" in tensors:
        own = set(tensors)
    if not own:
        raise PeaError(f"{path}: no {component} in it (no names that start with {' or '.join(PREFIXES[component])})")
    ldm, stand_ins = _diffusers(path), {name: TorchStandIn(name, tensors[name]) for name in own}
    try:
        converted = _CONVERTERS[component](ldm, stand_ins, config)
        result = {name: stand_in.tensor for name, stand_in in converted.items()}
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise PeaError(
            f"{path}: diffusers cannot translate the names of its {component} ({one_line(error)})"
        ) from error
    used = {stand_in.name for stand_in in converted.values()}
    if unknown := sorted(name for name in own - used if not IGNORED.fullmatch(name)):
        raise PeaError(f"{path}: {len(unknown)} tensors of its {component} are not known ({', '.join(unknown[:8])})")
    return result


def _unet(ldm: Any, tensors: dict[str, TorchStandIn], config: Mapping[str, Any]) -> dict[str, TorchStandIn]:
    return ldm.convert_ldm_unet_checkpoint(tensors, {"layers_per_block": 2, **config})


def _vae(ldm: Any, tensors: dict[str, TorchStandIn], config: Mapping[str, Any]) -> dict[str, TorchStandIn]:
    return ldm.convert_ldm_vae_checkpoint(tensors, config)


def _text_encoder(ldm: Any, tensors: dict[str, TorchStandIn], config: Mapping[str, Any]) -> dict[str, TorchStandIn]:
    if ldm.is_open_clip_model(tensors):
        return _open_clip(ldm, tensors, config, "cond_stage_model.model.")
    return ldm.convert_ldm_clip_checkpoint(tensors)


def _text_encoder_2(ldm: Any, tensors: dict[str, TorchStandIn], config: Mapping[str, Any]) -> dict[str, TorchStandIn]:
    return _open_clip(ldm, tensors, config, "conditioner.embedders.1.model.")


def _open_clip(
    ldm: Any, tensors: dict[str, TorchStandIn], config: Mapping[str, Any], prefix: str
) -> dict[str, TorchStandIn]:
    model = types.SimpleNamespace(config=types.SimpleNamespace(hidden_size=config["hidden_size"]))
    return ldm.convert_open_clip_checkpoint(model, tensors, prefix=prefix)


_CONVERTERS = {"unet": _unet, "vae": _vae, "text_encoder": _text_encoder, "text_encoder_2": _text_encoder_2}


def _diffusers(path: pathlib.Path) -> Any:
    try:
        from diffusers.loaders import single_file_utils
    except ImportError as error:
        raise PeaError(
            f"{path}: a checkpoint in one file, whose names diffusers translates: run "
            '`pip install "pea_jax[torch,transformers]"`, or save it as a diffusers folder'
        ) from error
    return single_file_utils
