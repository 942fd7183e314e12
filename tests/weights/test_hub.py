"""Models of the Hub: which files are fetched, and what is found or said where there is no network."""

import errno
import json
import pathlib
import sys

import huggingface_hub
import pytest
from huggingface_hub import constants

from pea_jax.errors import PeaError
from pea_jax.weights.adapter_layouts import find_adapter
from pea_jax.weights.hub import needed_files
from pea_jax.weights.locations import locate

COMMIT = "0123456789abcdef0123456789abcdef01234567"

# As published under stabilityai/stable-diffusion-xl-base-1.0, shortened by other formats of the same kinds.
SDXL_FILES = """
model_index.json sd_xl_base_1.0.safetensors sd_xl_base_1.0_0.9vae.safetensors README.md LICENSE.md 01.png
scheduler/scheduler_config.json
text_encoder/config.json text_encoder/flax_model.msgpack text_encoder/model.fp16.safetensors text_encoder/model.onnx
text_encoder/model.safetensors text_encoder/openvino_model.bin text_encoder/openvino_model.xml
text_encoder_2/config.json text_encoder_2/model.fp16.safetensors text_encoder_2/model.safetensors
tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json
unet/config.json unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.safetensors
vae/config.json vae/diffusion_pytorch_model.fp16.safetensors vae/diffusion_pytorch_model.safetensors
vae_1_0/config.json vae_1_0/diffusion_pytorch_model.safetensors vae_decoder/config.json vae_decoder/model.onnx
"""
NEEDED_OF_SDXL = """
model_index.json scheduler/scheduler_config.json text_encoder/config.json text_encoder/model.safetensors
text_encoder_2/config.json text_encoder_2/model.safetensors tokenizer/merges.txt
tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json unet/config.json
unet/diffusion_pytorch_model.safetensors vae/config.json vae/diffusion_pytorch_model.safetensors
"""
SDXL = SDXL_FILES.split()


def test_of_a_pipeline_one_format_and_precision():
    assert sorted(needed_files(SDXL)) == sorted(NEEDED_OF_SDXL.split())
    vae = [name for name in NEEDED_OF_SDXL.split() if name.startswith("vae/")]
    assert sorted(needed_files(SDXL, "vae")) == ["model_index.json", *sorted(vae)]


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        ("pytorch_model.bin model.safetensors model.fp16.safetensors onnx/model.onnx", "model.safetensors"),
        (
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors pytorch_model.bin",
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors",
        ),
        ("diffusion_pytorch_model.bin diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.bin"),
        (
            "diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
            "diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        ),
        ("model-00001-of-00001.fp16.safetensors x.bin", "model-00001-of-00001.fp16.safetensors"),
        ("clip_cn_vit-h-14.pt pytorch_model.bin", "pytorch_model.bin"),
        ("open_clip_pytorch_model.bin open_clip_config.json pytorch_model.bin", "pytorch_model.bin"),
        ("open_clip_pytorch_model.bin open_clip_model.safetensors", "open_clip_model.safetensors"),
        ("flax_model.msgpack", "flax_model.msgpack"),
        ("adapter.safetensors README.md samples.png", "adapter.safetensors"),
        ("model.onnx tf_model.h5 rust_model.ot training_args.bin", ""),
    ],
)
def test_of_one_model_the_best_format(files, weights):
    found = needed_files(["config.json", "spiece.model", *files.split()])
    texts = [name for name in files.split() if name.endswith(".json") and "/" not in name]
    assert sorted(found) == sorted(["config.json", "spiece.model", *texts, *weights.split()])


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    """An empty cache, with no way to the network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def store(cache: pathlib.Path, *files: str) -> pathlib.Path:
    """The cache of someone/model after a download of `files`."""
    repo = cache / "models--someone--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    root = repo / "snapshots" / COMMIT
    for number, name in enumerate(files):
        blob, link = repo / "blobs" / str(number), root / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_text(json.dumps({"unet": ["diffusers", "X"], "vae": ["diffusers", "Y"]}))
        link.symlink_to(blob)
    return root


def test_offline_the_cache_is_used(cache):
    weights = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"
    root = store(cache, "model_index.json", "unet/config.json", "vae/config.json", *weights)
    assert locate("someone/model") == locate("someone/model", "unet") == root
    assert (root / "unet" / "config.json").is_file()


def test_configs_alone_are_no_model(cache):
    root = store(cache, "model_index.json", "unet/config.json", "vae/config.json", "vae/diffusion_pytorch_model.bin")
    assert "hub.snapshot('someone/model')" in refusal("someone/model")
    assert '--include "unet/*"' in refusal("someone/model", "unet")
    assert locate("someone/model", with_weights=False) == locate("someone/model", "vae") == root


@pytest.mark.parametrize(
    ("config", "weights"),
    [("config.json", "model.safetensors"), ("open_clip_config.json", "open_clip_pytorch_model.bin")],
)
def test_a_model_without_pipeline(cache, config, weights):
    root = store(cache, config, weights)
    assert locate("someone/model") == root
    (root / weights).unlink()
    assert "hub.snapshot('someone/model')" in refusal("someone/model")


def test_an_adapter(cache, tmp_path):
    root = store(cache, "config.json", "adapter.safetensors")
    assert find_adapter("someone/model") == root
    assert find_adapter(tmp_path) == tmp_path
    assert find_adapter("runs/a/b") == pathlib.Path("runs/a/b")  # not there, and no name of the Hub


def refusal(*arguments: str) -> str:
    with pytest.raises(PeaError) as error:
        locate(*arguments)
    message = str(error.value)
    assert "\n" not in message and "'someone/model'" in message
    return message


def test_neither_network_nor_cache(cache):
    message = refusal("someone/model", "unet")
    assert "HF_HUB_OFFLINE" in message and '`hf download someone/model --include "unet/*"`' in message
    assert "give the path" in message
    assert "`python -c \"from pea_jax.weights import hub; hub.snapshot('someone/model')\"`" in refusal("someone/model")


def test_a_cache_without_all_folders_says_so(cache):
    store(cache, "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors")
    assert locate("someone/model", "unet").name == COMMIT
    assert "hub.snapshot('someone/model')" in refusal("someone/model")
    assert '--include "vae/*"' in refusal("someone/model", "vae")


def test_no_connection(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def unreachable(*_args, **_options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", unreachable)
    message = refusal("someone/model")
    assert "cannot be reached (ConnectionError)" in message and "hub.snapshot(" in message
    root = store(cache, "config.json", "flax_model.msgpack")
    assert locate("someone/model") == root


def test_a_cache_that_cannot_be_written(cache, monkeypatch):
    """Which is not said to be a matter of the network; what is there already needs no writing."""

    def forbidden(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", str(cache))

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda _self, repo_id: ["config.json"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", forbidden)
    with pytest.raises(PermissionError, match=str(cache)):
        locate("someone/model")
    root = store(cache, "config.json", "model.safetensors")
    assert locate("someone/model") == root


def test_online_only_the_needed_files_are_asked_for(cache, monkeypatch):
    asked = {}
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda _self, repo_id: SDXL)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo_id, allow_patterns: asked.update({repo_id: allow_patterns})
        or "there"
    )  # fmt: skip
    assert locate("someone/model", "vae") == pathlib.Path("there")
    assert asked == {"someone/model": needed_files(SDXL, "vae")}


def test_for_configs_alone_no_weights_are_asked_for(cache):
    files = needed_files(SDXL, with_weights=False)
    assert {"unet/config.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"} <= set(files)
    assert not [name for name in files if name.endswith((".safetensors", ".bin", ".msgpack"))]
    with pytest.raises(PeaError) as error:
        locate("someone/model", with_weights=False)
    assert '--include "*.json"' in str(error.value) and "safetensors" not in str(error.value)


def test_without_the_package(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install huggingface_hub" in refusal("someone/model")
