"""The nodes keep ComfyUI's contract, and give what the adapter gives."""

import inspect
import types

import pytest
import torch

from pea_jax.pytorch import PEAdapter
from tests.downstream.conftest import World

NAMES = {"PEALoadAdapter", "PEATextEncode"}


@pytest.fixture
def nodes(example, monkeypatch) -> types.ModuleType:
    monkeypatch.syspath_prepend("examples/comfyui")
    return example("pea_adapter")


def test_contract(nodes):
    """What ComfyUI reads: names, inputs, outputs, and a method that takes the inputs by name."""
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys() == NAMES
    for node in nodes.NODE_CLASS_MAPPINGS.values():
        inputs = node.INPUT_TYPES()["required"]
        parameters = list(inspect.signature(getattr(node(), node.FUNCTION)).parameters)
        assert parameters == list(inputs) and node.CATEGORY
        assert isinstance(node.RETURN_TYPES, tuple)
        for kind, *options in inputs.values():
            assert isinstance(kind, str | list) and all(isinstance(option, dict) for option in options)
    encode = nodes.PEATextEncode
    assert encode.INPUT_TYPES()["required"]["adapter"][:1] == nodes.PEALoadAdapter.RETURN_TYPES
    assert encode.RETURN_TYPES == ("CONDITIONING",)


def test_conditioning_is_the_adapters(nodes, downstream: World):
    (adapter,) = nodes.PEALoadAdapter().load(adapter=str(downstream.adapter))
    (conditioning,) = nodes.PEATextEncode().encode(adapter=adapter, text="кот", width=768, height=512, device="cpu")
    ((tokens, with_it),) = conditioning
    expected = downstream.torch_adapter.embed(["кот"], torch.device("cpu"), torch.float32)
    assert tokens.shape == (1, 12, 24) and with_it["pooled_output"].shape == (1, 10)
    torch.testing.assert_close(tokens, expected["prompt_embeds"])
    torch.testing.assert_close(with_it.pop("pooled_output"), expected["pooled_prompt_embeds"])
    assert with_it == dict(width=768, height=512, crop_w=0, crop_h=0, target_width=768, target_height=512)


def test_nothing_pooled_for_stable_diffusion_15(nodes, downstream: World):
    one = downstream.torch_adapter
    plain = PEAdapter([24, 8, 16], None, False, one.text_encoder[0]).eval()
    (((tokens, with_it),),) = nodes.PEATextEncode().encode(plain, "кот", 512, 512, "cpu")
    assert tokens.shape == (1, 12, 16) and with_it == {}
