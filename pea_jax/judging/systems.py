"""The systems that are compared, from a config and adapter directories: who draws which text."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pea_jax.adapter import PEAdapter
from pea_jax.distill.judging import TEACHER
from pea_jax.distill.models import FrozenModels
from pea_jax.judging.drawing import System
from pea_jax.judging.prompts import Prompt
from pea_jax.sampling.pipeline import TextToImage
from pea_jax.text.conditioner import AdapterConditioner
from pea_jax.weights.adapter_layouts import read_config
from pea_jax.weights.torch_names import to_torch_names

TRANSLATED = "translation + teacher"


def english_systems(
    config: ConfigDict, frozen: FrozenModels, prompts: Sequence[Prompt], translated: Sequence[str] | None
) -> list[System]:
    """The teacher with the English of the prompts, where they have it, and with their translation, if there is one."""
    english, base = [prompt.english for prompt in prompts], _base_of(config)
    systems = [System(TEACHER, frozen.teacher, english, base)] if any(english) else []
    return systems + ([System(TRANSLATED, frozen.teacher, translated, base)] if translated else [])


def adapter_systems(
    config: ConfigDict,
    frozen: FrozenModels,
    pipeline: TextToImage,
    folders: Mapping[str, str],
    prompts: Sequence[Prompt],
    mesh: Mesh,
) -> list[System]:
    """Each adapter, by name, with the prompts as they are; behind the text encoder that it was trained with.

    Raises:
      PeaError: an adapter is missing, broken, or made for another base model.
    """
    systems = []
    for name, folder in folders.items():
        conditioner = conditioner_of(config, frozen, folder, mesh)
        pipeline.check(conditioner.adapter_dims, folder)
        encoder = conditioner.text_encoder.describe()
        origin = dict(_base_of(config), adapter=_fingerprint(conditioner), text_encoder=encoder)
        systems.append(System(name, conditioner, [prompt.prompt for prompt in prompts], origin))
    return systems


def _base_of(config: ConfigDict) -> dict[str, Any]:
    """The base model, and how it computes."""
    fields: dict[str, Any] = dict(base_model=config.base_model, dtype=config.dtype)
    fields |= {name: config[name] for name in ("base_model_config", "vae_dtype") if config[name]}
    return fields | (dict(quantisation=config.quantisation.to_dict()) if config.quantisation.weights else {})


def conditioner_of(config: ConfigDict, frozen: FrozenModels, folder: str, mesh: Mesh) -> AdapterConditioner:
    """An adapter behind the text encoder that it was trained with: that of the config, which is loaded already, or
    another one.

    Raises:
      PeaError: the adapter or its text encoder is missing or broken.
    """
    rule: Any = read_config(folder).get("text_encoder")
    described = {**frozen.student.describe(), "id": config.text_encoder.id}
    if isinstance(rule, Mapping) and _is_called_so(rule, dict(config.text_encoder), described):
        return AdapterConditioner(frozen.student, PEAdapter.from_pretrained(folder))
    return AdapterConditioner.from_pretrained(folder, dtype=jnp.dtype(config.dtype), mesh=mesh)


def _is_called_so(rule: Mapping[str, Any], given: Mapping[str, Any], described: Mapping[str, Any]) -> bool:
    """Whether an adapter's `text_encoder` is the config's, called in the same way.

    Args:
      rule: that of the adapter, as a training described it, or as the config had it that it was brought in with.
      given: that of the config, which may leave the hidden state to the architecture.
      described: what this came to.
    """
    others = [name for name in described if name not in given and name != "encoders"]
    return (
        all(rule.get(name) in (given[name], described[name]) for name in given)
        and all(rule.get(name, described[name]) == described[name] for name in others)
        and all(
            _is_called_so(own, {**given, "id": encoder["id"]}, encoder)
            for own, encoder in zip(rule.get("encoders", ()), described.get("encoders", ()), strict=False)
        )
    )


def _fingerprint(conditioner: AdapterConditioner) -> str:
    """Of the adapter's numbers, wherever they were read from."""
    digest = hashlib.sha256()
    for name, array in sorted(to_torch_names(conditioner.params[1]).items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()
