"""Loading of diffusers folders: what is read, and what is said when it cannot be."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.numpy import load_file, save_file

from pea_jax.errors import PeaError
from pea_jax.weights import load_unet, load_vae, to_torch_names
from tests.torch_oracle import randomised

FILE = "diffusion_pytorch_model.safetensors"
INDEX = FILE + ".index.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
    """A folder with a UNet and an autoencoder of toy size."""
    folder = tmp_path_factory.mktemp("model")
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=6,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    randomised(unet).save_pretrained(folder / "unet")
    randomised(AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)).save_pretrained(folder / "vae")
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> pathlib.Path:
    """A copy to be spoilt."""
    return shutil.copytree(saved, tmp_path / "model")


def equal(ours: dict[str, np.ndarray], file: pathlib.Path) -> bool:
    theirs = load_file(file)
    return ours.keys() == theirs.keys() and all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


def test_every_tensor_comes_back_bit_for_bit(folder):
    assert equal(to_torch_names(load_unet(folder)), folder / "unet" / FILE)
    assert equal(to_torch_names(load_vae(str(folder))), folder / "vae" / FILE)
    assert equal(to_torch_names(load_unet(folder / "unet", "")), folder / "unet" / FILE)


def test_dtype_is_of_storage_and_computation(folder):
    unet = load_unet(folder, dtype=jnp.bfloat16)
    assert unet.conv_in.kernel[...].dtype == jnp.bfloat16
    prediction, _ = jax.eval_shape(unet, jnp.zeros((1, 4, 4, 4)), jnp.zeros(1), jnp.zeros((1, 2, 6)))
    assert prediction.dtype == jnp.bfloat16


def test_sharded_files(saved, tmp_path):
    oracle = UNet2DConditionModel.from_pretrained(saved / "unet")
    oracle.save_pretrained(tmp_path / "unet", max_shard_size="20KB")
    assert (tmp_path / "unet" / INDEX).is_file()
    assert equal(to_torch_names(load_unet(tmp_path)), saved / "unet" / FILE)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bits_a_number(folder, kind):
    """Values as PyTorch reads them; what they are computed in is another matter."""
    path = folder / "unet" / FILE
    stored = {name: tensor.to(kind) for name, tensor in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(stored, path)
    for name, value in to_torch_names(load_unet(folder)).items():
        np.testing.assert_array_equal(value, stored[name].float().numpy())
    for name, value in to_torch_names(load_unet(folder, dtype=jnp.bfloat16)).items():
        np.testing.assert_array_equal(value.astype(np.float32), stored[name].bfloat16().float().numpy())


def test_half_precision_variant_if_there_is_no_other(folder):
    path = folder / "unet" / FILE
    tensors = {name: value.astype(np.float16) for name, value in load_file(path).items()}
    path.unlink()
    save_file(tensors, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    unet = load_unet(folder)
    assert unet.conv_in.bias[...].dtype == jnp.float32
    np.testing.assert_array_equal(unet.conv_in.bias[...], tensors["conv_in.bias"].astype(np.float32))


def test_old_names_of_the_autoencoder(folder):
    path = folder / "vae" / FILE
    expected = to_torch_names(load_vae(folder))
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for name, value in load_file(path).items():
        for new_part, old_part in old.items():
            name = name.replace(new_part, old_part)
        renamed[name] = value
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in renamed
    save_file(renamed, path)
    ours = to_torch_names(load_vae(folder))
    assert ours.keys() == expected.keys()
    assert all(ours[name].tobytes() == expected[name].tobytes() for name in expected)


def refusal(folder: pathlib.Path) -> str:
    with pytest.raises(PeaError) as error:
        load_unet(folder)
    message = str(error.value)
    assert "\n" not in message and str(folder / "unet") in message
    return message


def test_no_folder(tmp_path):
    assert "unet: no such folder" in refusal(tmp_path)
    with pytest.raises(PeaError, match="nothing': no such model folder"):
        load_unet(tmp_path / "nothing")


def test_no_config(folder):
    (folder / "unet" / "config.json").unlink()
    assert "config.json: no such file" in refusal(folder)


@pytest.mark.parametrize("text", ['{"in_channels": ', "[1, 2]", ""])
def test_broken_config(folder, text):
    (folder / "unet" / "config.json").write_text(text)
    assert "config.json: not a model config" in refusal(folder)


def test_unsupported_config(folder):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dual_cross_attention": True}))
    assert "config.json: dual_cross_attention=True is not supported" in refusal(folder)


def test_no_weights(folder):
    (folder / "unet" / FILE).unlink()
    message = refusal(folder)
    assert f"neither {FILE} nor diffusion_pytorch_model.bin (found config.json)" in message


def test_renamed_weights(folder):
    (folder / "unet" / FILE).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "diffusion_pytorch_model.bin: not a complete file of PyTorch tensors" in refusal(folder)


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB"}, {"variant": "fp16"}])
def test_pickled_weights(saved, tmp_path, options):
    UNet2DConditionModel.from_pretrained(saved / "unet").save_pretrained(
        tmp_path / "unet", safe_serialization=False, **options
    )
    assert not list(tmp_path.rglob("*.safetensors"))
    assert equal(to_torch_names(load_unet(tmp_path)), saved / "unet" / FILE)


@pytest.mark.parametrize("kept", [0, 5, 0.1, 0.99])
def test_truncated_weights(folder, kept):
    path = folder / "unet" / FILE
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    assert f"{FILE}: not a complete safetensors file" in refusal(folder)


def test_other_bytes_than_safetensors(folder):
    (folder / "unet" / FILE).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n" * 9)
    assert "not a complete safetensors file" in refusal(folder)


def spoil(folder: pathlib.Path, change) -> str:
    path = folder / "unet" / FILE
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return refusal(folder)


def test_missing_and_unexpected_tensor(folder):
    message = spoil(folder, lambda tensors: tensors.update({"conv_inn.bias": tensors.pop("conv_in.bias")}))
    assert "1 missing (conv_in.bias)" in message and "1 unexpected (conv_inn.bias)" in message


def test_wrong_shape(folder):
    message = spoil(folder, lambda tensors: tensors.update({"conv_out.bias": np.zeros(3, np.float32)}))
    assert "conv_out.bias is [3], must be [4]" in message


def test_wrong_dtype(folder):
    message = spoil(folder, lambda tensors: tensors.update({"conv_out.bias": np.zeros(4, np.int8)}))
    assert "conv_out.bias is int8, must be floating" in message


def shard(folder: pathlib.Path) -> pathlib.Path:
    """Replaces the weights by one shard and its index."""
    path = folder / "unet" / FILE
    names = list(load_file(path))
    path.rename(folder / "unet" / "part-1.safetensors")
    index = folder / "unet" / INDEX
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "part-1.safetensors")}))
    return index


def test_missing_shard(folder):
    shard(folder)
    (folder / "unet" / "part-1.safetensors").unlink()
    assert "part-1.safetensors: no such file" in refusal(folder)


def test_index_that_differs_from_its_files(folder):
    index = shard(folder)
    index.write_text(index.read_text().replace("conv_in.bias", "conv_on.bias"))
    assert "index and files differ in 2 tensors (conv_in.bias)" in refusal(folder)


def test_broken_index(folder):
    shard(folder).write_text("{}")
    assert f"{INDEX}: not an index" in refusal(folder)
