"""Both text stacks of the published step in PyTorch, with random weights."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.networks import Config, Networks
from benchmarks.torch_recipes import made_on

_SHAPELESS = ("architectures", "dtype", "torch_dtype", "transformers_version", "tokenizer_class")


class Texts:
    """Token ids of a batch to its `states`, `prompt_embeds` and `pooled_prompt_embeds`."""

    def __init__(self, networks: Networks, device: torch.device, dtype: torch.dtype):
        with made_on(device, dtype):
            self._student = _student(networks.student)
            self._clip = CLIPTextModel(_clip(networks.text_encoder))
            self._clip_2 = CLIPTextModelWithProjection(_clip(networks.text_encoder_2))
        for network in (self._student, self._clip, self._clip_2):
            network.eval().requires_grad_(False)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        student, teacher = batch["student_tokens"], batch["teacher_tokens"]
        first = self._clip(teacher["input_ids"], output_hidden_states=True)
        second = self._clip_2(teacher["input_ids_2"], output_hidden_states=True)
        return dict(
            states=self._student(**student).last_hidden_state,
            prompt_embeds=torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1),
            pooled_prompt_embeds=second.text_embeds,
        )


def _student(config: Config) -> torch.nn.Module:
    fields = {name: value for name, value in config.items() if name not in (*_SHAPELESS, "model_type")}
    parsed = AutoConfig.for_model(config["model_type"], **fields)
    return AutoModel.from_config(parsed, add_pooling_layer=False)


def _clip(config: Config) -> CLIPTextConfig:
    skipped = (*_SHAPELESS, "model_type")
    return CLIPTextConfig(**{name: value for name, value in config.items() if name not in skipped})
