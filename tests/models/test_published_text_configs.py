"""Parameter names and shapes of full-size text encoders, built without memory here and by PyTorch."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from pea_jax.models.altclip import AltCLIPText, AltCLIPTextConfig
from pea_jax.models.bert import Bert, BertConfig
from pea_jax.models.clip_text import CLIPText, CLIPTextConfig
from pea_jax.models.layers import abstract
from pea_jax.models.t5 import T5Config, T5Encoder
from pea_jax.weights.altclip import NEW_NAME
from pea_jax.weights.open_clip import NETWORKS
from pea_jax.weights.torch_names import torch_axes, torch_name
from tests import published_text_configs as published


def our_shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    return {
        torch_name(path): tuple(np.array(value.shape)[np.argsort(torch_axes(path, value.ndim))])
        for path, value in nnx.to_flat_state(nnx.state(model))
    }


def pytorch_shapes(kind: Any, config: published.Config, **options: Any) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        oracle = kind(kind.config_class.from_dict(config), **options)
    return {name.removeprefix("text_model."): tuple(value.shape) for name, value in oracle.named_parameters()}


def check(model: nnx.Module, expected: dict[str, tuple[int, ...]], size: int) -> None:
    ours = our_shapes(model)
    assert ours == expected
    assert sum(map(math.prod, ours.values())) == size


@pytest.mark.parametrize("name", published.CLIP)
def test_clip(name: str):
    config, size = published.CLIP[name]
    kind = getattr(transformers, config["architectures"][0])
    with_projection = kind.__name__.endswith("WithProjection")
    model = abstract(lambda: CLIPText(CLIPTextConfig.from_dict(config), with_projection))
    check(model, pytorch_shapes(kind, config), size)


@pytest.mark.parametrize("name", published.BERT)
def test_bert_and_xlm_roberta(name: str):
    config, size = published.BERT[name]
    kind = transformers.BertModel if config["model_type"] == "bert" else transformers.XLMRobertaModel
    model = abstract(lambda: Bert(BertConfig.from_dict(config)))
    check(model, pytorch_shapes(kind, config, add_pooling_layer=False), size)


@pytest.mark.parametrize("name", published.ALTCLIPS)
def test_altclip(name: str):
    config, size = published.ALTCLIPS[name]
    model = abstract(lambda: AltCLIPText(AltCLIPTextConfig.from_dict(config)))
    expected = pytorch_shapes(transformers.AltCLIPTextModel, config)
    check(model, {name.replace(*NEW_NAME): shape for name, shape in expected.items()}, size)


def test_altclip_is_what_a_silent_config_means():
    assert AltCLIPTextConfig.from_dict({}) == AltCLIPTextConfig.from_dict(published.ALTCLIP)


@pytest.mark.parametrize("name", published.T5)
def test_t5(name: str):
    config, size = published.T5[name]
    kind = getattr(transformers, config["architectures"][0].replace("ForConditionalGeneration", "EncoderModel"))
    model = abstract(lambda: T5Encoder(T5Config.from_dict(config)))
    check(model, pytorch_shapes(kind, config), size)


def test_open_clip_knows_the_configs_that_it_has_from_the_hub():
    assert BertConfig.from_dict(NETWORKS["xlm-roberta-large"]) == BertConfig.from_dict(published.XLM_R_LARGE)
    assert BertConfig.from_dict(NETWORKS["xlm-roberta-base"]) == BertConfig.from_dict(published.E5_BASE)
