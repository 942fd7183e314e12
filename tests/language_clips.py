"""Text encoders of the languages' own CLIPs at toy size, saved in the layouts of the published files."""

import functools
import json
import pathlib
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from flax import nnx
from safetensors.torch import load_file
from transformers.models.bert_japanese.tokenization_bert_japanese import BasicTokenizer, WordpieceTokenizer

from pea_jax.text.encoders import TextEncoder
from pea_jax.weights.torch_names import torch_axes, torch_name
from tests import tiny_tokenizers
from tests.prompts import prompts
from tests.tiny_text_models import assert_close, randomise

SMALL = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)
VISION = transformers.CLIPVisionConfig(
    hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4
)
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
KLUE_SPECIALS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")


@functools.cache
def word_pieces(lowercase: bool, specials: tuple[str, ...] = BERT_SPECIALS) -> tuple[str, ...]:
    """The lines of a `vocab.txt`, the special tokens in the given order."""
    words = tiny_tokenizers.wordpiece(lowercase)
    return (*specials, *(word for word in words if word not in specials))


def save_vocabulary(folder: pathlib.Path, lines: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", "utf-8")


def save_cased_tokenizer(folder: pathlib.Path, specials: tuple[str, ...] = BERT_SPECIALS) -> int:
    """BERT's cased tokenizer as transformers saves it; returns its size."""
    lines = word_pieces(False, specials)
    vocabulary = {token: number for number, token in enumerate(lines)}
    tokenizer = transformers.BertTokenizer(vocab=vocabulary, do_lower_case=False, model_max_length=512)
    tokenizer.save_pretrained(folder)
    return len(lines)


def save_korean_clip(folder: pathlib.Path) -> Any:
    """Bingsu/clip-vit-large-patch14-ko: CLIP throughout, with merges of Korean."""
    tiny_tokenizers.clip_old(folder)
    tiny_tokenizers.resaved(folder)
    vocabulary, _ = tiny_tokenizers.clip()
    text = dict(SMALL, vocab_size=len(vocabulary), eos_token_id=vocabulary["<|endoftext|>"])
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION.to_dict(), projection_dim=20)
    return save_whole(folder, transformers.CLIPModel(config))


def save_dual_encoder(folder: pathlib.Path, text: Any) -> Any:
    """koclip/koclip-base-pt (RoBERTa) and clip-italian (BERT) as PyTorch keeps them."""
    return save_whole(folder, dual_encoder(text))


def dual_encoder(text: Any, vision: Any = VISION, **fields: Any) -> Any:
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, **fields)
    return transformers.VisionTextDualEncoderModel(config).eval()


def save_whole(folder: pathlib.Path, model: Any) -> Any:
    """Saves a model of texts and pictures; returns its text half, the oracle."""
    text_model = randomise(model.eval().text_model)
    model.save_pretrained(folder)
    return text_model


def save_hybrid_clip(folder: pathlib.Path, text: Any) -> Any:
    """The same in Flax, as both were first published; RoBERTa then had the positions 0, 1, 2, ..."""
    model = dual_encoder(text)
    oracle = randomise(model.text_model)
    save_as_flax(folder, model)
    return oracle


def save_as_flax(folder: pathlib.Path, model: Any) -> None:
    """A dual encoder as `HybridCLIP` in `flax_model.msgpack`."""
    from flax import serialization, traverse_util

    model.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    tree = traverse_util.unflatten_dict({flax_path(name, x): flax_array(name, x) for name, x in state.items()})
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    (folder / "model.safetensors").unlink()
    rewrite(folder, architectures=["HybridCLIP"], model_type="hybrid-clip")


def flax_path(name: str, tensor: torch.Tensor) -> tuple[str, ...]:
    *parents, leaf = name.split(".")
    if leaf == "weight":
        is_table = tensor.ndim == 2 and "embedding" in parents[-1]
        leaf = "embedding" if is_table else "kernel" if tensor.ndim > 1 else "scale"
    return (*parents, leaf)


def flax_array(name: str, tensor: torch.Tensor) -> np.ndarray:
    array, leaf = tensor.numpy(), flax_path(name, tensor)[-1]
    return np.ascontiguousarray(
        array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T if leaf == "kernel" else array
    )


def save_text_half(folder: pathlib.Path, text_model: torch.nn.Module, config: Mapping[str, Any]) -> None:
    """`pytorch_model.bin` of a class that is not in transformers: the text half, with something of the other."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"text_model.{name}": tensor for name, tensor in text_model.state_dict().items()}
    others = {
        "text_model.embeddings.position_ids": torch.arange(20)[None],
        "vision_model.embeddings.class_embedding": torch.zeros(8),
        "text_projection.weight": torch.zeros(4, 24),
        "visual_projection.weight": torch.zeros(4, 8),
        "logit_scale": torch.zeros(()),
    }
    torch.save(tensors | others, folder / "pytorch_model.bin")
    text = text_model.config.to_dict()
    (folder / "config.json").write_text(json.dumps({**config, "text_config": text, "vision_config": VISION.to_dict()}))


def plain_word_pieces(text: str, lines: tuple[str, ...]) -> list[int]:
    """The ids of BERT's first, lower-casing tokenizer, in plain Python, without special tokens.

    Unicode's categories are Python's: a text with characters newer than those, or private ones, is cleaned otherwise.
    """
    vocabulary = {token: number for number, token in enumerate(lines)}
    words = BasicTokenizer(do_lower_case=True).tokenize(text)
    pieces = WordpieceTokenizer(vocabulary, "[UNK]", max_input_chars_per_word=200)
    return [vocabulary[piece] for word in words for piece in pieces.tokenize(word)]


def has_settled_categories(text: str) -> bool:
    return not {"Cn", "Co"} & set(map(unicodedata.category, text))


def shapes(network: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Of every parameter, by its PyTorch name, in PyTorch's layout; the network may be abstract."""
    return {
        torch_name(path): tuple(np.array(value.shape)[np.argsort(torch_axes(path, value.ndim))])
        for path, value in nnx.to_flat_state(nnx.state(network))
    }


def rewrite(folder: pathlib.Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def assert_states(encoder: TextEncoder, oracle: Any, language: str, *, masked: bool = True, **inputs: Any) -> None:
    """The states of prompts short, empty and too long, after every layer, are those of the PyTorch module, at the same
    ids and mask."""
    texts = [prompts(language)[number] for number in (0, 3, 6, 60, 61, 64, 81)]
    states, mask = encoder.encode(texts)
    tokens = encoder.tokenize(texts)
    np.testing.assert_array_equal(mask, tokens["attention_mask"])
    assert len(set(tokens["attention_mask"].sum(1))) > 3
    ids = torch.from_numpy(tokens["input_ids"]).long()
    arguments = dict(attention_mask=torch.from_numpy(tokens["attention_mask"])) if masked else {}
    _, features = encoder.run(encoder.params, **tokens)
    with torch.no_grad():
        found = oracle(ids, **arguments, **inputs, output_hidden_states=True)
    assert_close(states, found.last_hidden_state)
    for ours, theirs in zip(features["hidden_states"], found.hidden_states, strict=True):
        assert_close(ours, theirs)
