"""A thousand spoilt folders: each is refused in one clear line or gives a whole, sound model, and soon."""

import json
import pathlib
import random
import struct
import time

import jax
import numpy as np
import pytest
from diffusers import AutoencoderKL
from safetensors.numpy import load_file

from pea_jax.errors import PeaError
from pea_jax.models.altclip import AltCLIPTextConfig
from pea_jax.models.bert import BertConfig
from pea_jax.models.clip_text import CLIPTextConfig
from pea_jax.models.controlnet import ControlNetConfig
from pea_jax.models.t5 import T5Config
from pea_jax.models.unet import UNetConfig
from pea_jax.models.vae import VAEConfig
from pea_jax.weights import load_vae, to_torch_names
from pea_jax.weights.config_files import read_config
from tests.torch_oracle import randomised

WEIGHTS, CONFIG = "diffusion_pytorch_model.safetensors", "config.json"
INDEX = WEIGHTS + ".index.json"
CASES = 1000
NAN, INF = float("nan"), float("inf")
VALUES = [None, True, -1, 0, 3, 7.5, 10**6, 10**30, NAN, INF, "", "gelu", [], [4], [[1]], {}, "\ud800", "../x"]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("vae")
    model = AutoencoderKL(block_out_channels=(2,), norm_num_groups=1, latent_channels=1, mid_block_add_attention=False)
    randomised(model).save_pretrained(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    names = load_file(folder / WEIGHTS)
    return files | {
        INDEX: json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "part.safetensors")}).encode()
    }


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32))):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def flip_header_bits(data: bytes, rng: random.Random) -> bytes:
    end = 8 + struct.unpack("<Q", data[:8])[0]
    return flip_bits(data[:end], rng) + data[end:]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))] if rng.random() < 0.7 else data + rng.randbytes(rng.randrange(1, 50))


def edit_header(data: bytes, rng: random.Random) -> bytes:
    """A header that is still JSON, of the right length, but lies."""
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    text = json.dumps(edited(header, rng)).encode()
    return struct.pack("<Q", len(text)) + text + data[end:]


def edit_json(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(edited(json.loads(data), rng)).encode()


def edited(tree, rng: random.Random):
    """A random place in `tree` removed, renamed, doubled or given another value."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.85:
        key = rng.choice(sorted(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        action = rng.choice(("descend", "descend", "remove", "rename", "double"))
        if action == "descend":
            tree[key] = edited(tree[key], rng)
        elif action == "remove":
            del tree[key]
        elif isinstance(tree, list):
            tree.append(tree[key])
        else:
            tree[str(key) + "_x"] = tree.pop(key) if action == "rename" else tree[key]
        return tree
    return rng.choice(VALUES)


MUTATIONS = {
    WEIGHTS: (flip_bits, flip_header_bits, flip_header_bits, truncate, edit_header, edit_header),
    CONFIG: (flip_bits, edit_json, edit_json, edit_json, truncate),
    INDEX: (flip_bits, edit_json, edit_json, truncate),
}


def spoil(folder: pathlib.Path, original: dict[str, bytes], rng: random.Random) -> None:
    """Writes the model with one file mutated; where that is the index, the weights are its only shard."""
    kind = rng.choice((WEIGHTS, WEIGHTS, CONFIG, INDEX))
    data = rng.choice(MUTATIONS[kind])(original[kind], rng)
    for path in folder.iterdir():
        path.unlink()
    files = {name: original[name] for name in (WEIGHTS, CONFIG)} | {kind: data}
    if kind == INDEX:
        files["part.safetensors"] = files.pop(WEIGHTS)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def holds_the_file(model, folder: pathlib.Path) -> bool:
    """All of the file's tensors are in the model, and no others."""
    stored, ours = load_file(next(folder.glob("*.safetensors"))), to_torch_names(model)
    return ours.keys() == stored.keys() and all(
        np.array_equal(ours[name], value.astype(np.float32), equal_nan=True) for name, value in stored.items()
    )


def runs(model) -> bool:
    """It encodes and decodes, and scales latents by a number that can be divided by."""
    config = model.config
    moments = jax.eval_shape(model.encode, jax.ShapeDtypeStruct((1, 8, 8, config.in_channels), np.float32))
    picture = jax.eval_shape(model.decode, jax.ShapeDtypeStruct((1, 4, 4, config.latent_channels), np.float32))
    widths = (moments.shape[-1], picture.shape[-1])
    return 0 < config.scaling_factor < np.inf and widths == (2 * config.latent_channels, config.out_channels)


def test_a_clear_error_or_a_sound_model(original, tmp_path):
    rng, refused, sound, slowest = random.Random(0), 0, 0, 0.0
    known = set()  # configs whose models run: tracing takes longer than all else
    for case in range(CASES):
        spoil(tmp_path, original, rng)
        start = time.process_time()
        try:
            model = load_vae(tmp_path, "")
        except PeaError as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error), f"case {case}: {error}"
            refused += 1
        else:
            assert holds_the_file(model, tmp_path), f"case {case}"
            assert model.config in known or runs(model), f"case {case}: {model.config}"
            known.add(model.config)
            sound += 1
        slowest = max(slowest, time.process_time() - start)
    assert refused > CASES / 2 and sound > CASES / 50, (refused, sound)
    assert slowest < 5.0


FIELDS = {
    UNetConfig: "in_channels out_channels block_out_channels layers_per_block transformer_layers_per_block norm_eps "
    "down_block_types up_block_types attention_head_dim cross_attention_dim norm_num_groups flip_sin_to_cos",
    ControlNetConfig: "in_channels conditioning_channels conditioning_embedding_out_channels use_linear_projection",
    VAEConfig: "in_channels latent_channels layers_per_block down_block_types scaling_factor force_upcast",
    CLIPTextConfig: "vocab_size hidden_size projection_dim num_hidden_layers num_attention_heads hidden_act "
    "layer_norm_eps eos_token_id max_position_embeddings",
    BertConfig: "vocab_size hidden_size intermediate_size num_attention_heads hidden_act layer_norm_eps",
    AltCLIPTextConfig: "project_dim num_hidden_layers",
    T5Config: "vocab_size d_model d_kv d_ff num_layers num_heads relative_attention_num_buckets layer_norm_epsilon",
}


@pytest.mark.parametrize("config", FIELDS)
def test_what_no_field_can_be(config, tmp_path):
    """The error names the file and the field."""
    base = {"feed_forward_proj": "gated-gelu"} if config is T5Config else {}
    for name in FIELDS[config].split():
        for value in (None, -1, NAN, INF, "", "none", [], [[1]], {}):
            (tmp_path / CONFIG).write_text(json.dumps(base | {name: value}))
            with pytest.raises(PeaError, match=rf"config\.json: .*{name}"):
                read_config(tmp_path, config.from_dict)
