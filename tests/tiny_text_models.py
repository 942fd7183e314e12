"""PyTorch text encoders and tokenizers of toy size, with weights large enough for every term to show in the output."""

import pathlib
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

MERGES = [
    ("c", "a"),
    ("ca", "t</w>"),
    ("r", "e"),
    ("re", "d</w>"),
    ("p", "l"),
    ("a", "p"),
    ("ap", "pl"),
    ("!", "!</w>"),
]
CONTEXT, VOCABULARY = 16, 512 + len(MERGES) + 2


def randomise(model: torch.nn.Module, seed: int = 0) -> Any:
    """`model` for inference, with new parameters: activations of order one, norms and biases away from 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.copy_(("norm" in name.lower()) * ("weight" in name) + 0.3 * noise)
            else:
                parameter.copy_(noise if "embed" in name else 1.5 * noise / parameter.shape[1] ** 0.5)
    return model.eval()


def random_clip(*, with_projection: bool, **config: Any) -> Any:
    kind = transformers.CLIPTextModelWithProjection if with_projection else transformers.CLIPTextModel
    return randomise(kind(transformers.CLIPTextConfig(**config)))


def random_bert(**config: Any) -> Any:
    return randomise(transformers.BertModel(transformers.BertConfig(**config), add_pooling_layer=False))


def random_xlm_roberta(**config: Any) -> Any:
    return randomise(transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**config), add_pooling_layer=False))


def state_dict(model: torch.nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """The parameters by the names that the encoder has for itself."""
    return {name.removeprefix(prefix): parameter.detach().numpy() for name, parameter in model.named_parameters()}


def clip_tokenizer(pad_token: str = "<|endoftext|>", context_length: int = CONTEXT) -> transformers.CLIPTokenizer:
    """CLIP's byte-level BPE with a handful of merges; its end-of-text token has the largest id."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(pair) for pair in MERGES]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=MERGES, pad_token=pad_token, model_max_length=context_length
    )


def save_sdxl_text_models(folder: pathlib.Path) -> tuple[Any, Any]:
    """Writes the text half of a Stable Diffusion XL folder; returns its two encoders."""
    shared = dict(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, num_hidden_layers=3, num_attention_heads=2)
    first = random_clip(with_projection=False, hidden_size=16, intermediate_size=40, eos_token_id=2, **shared)
    second = random_clip(
        with_projection=True,
        hidden_size=24,
        intermediate_size=32,
        projection_dim=20,
        hidden_act="gelu",
        eos_token_id=VOCABULARY - 1,
        **shared,
    )
    first.save_pretrained(folder / "text_encoder")
    second.save_pretrained(folder / "text_encoder_2")
    clip_tokenizer().save_pretrained(folder / "tokenizer")
    clip_tokenizer(pad_token="!").save_pretrained(folder / "tokenizer_2")
    return first, second


def assert_close(actual: Any, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    """max |difference| within `tolerance` standard deviations of `expected`."""
    wanted = expected.detach().numpy()
    assert actual.shape == wanted.shape
    difference = np.abs(np.asarray(actual, np.float32) - wanted).max() / wanted.std()
    assert difference <= tolerance, difference
