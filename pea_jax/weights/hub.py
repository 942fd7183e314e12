"""Models of the Hugging Face Hub: which of their files are needed, and where they lie in the cache."""

import errno
import json
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from pea_jax.errors import PeaError

REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
PIPELINE_FOLDERS = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
CONFIGS = ("config.json", "open_clip_config.json")  # of which a model has one
TEXT_SUFFIXES = (".json", ".txt", ".model")  # configs, vocabularies, SentencePiece models
OF_THE_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
# The first of these that a folder has is taken, with its shards.
WEIGHTS = (
    r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors",
    r"(diffusion_pytorch_)?model(\.fp16(-\d+-of-\d+)?|-\d+-of-\d+\.fp16)\.safetensors",
    r"(diffusion_)?pytorch_model(-\d+-of-\d+)?\.bin",
    r"(diffusion_)?pytorch_model(\.fp16(-\d+-of-\d+)?|-\d+-of-\d+\.fp16)\.bin",
    r"open_clip_model\.safetensors",
    r"open_clip_pytorch_model\.bin",
    r"[^/]+\.pt",
    r"flax_model\.msgpack",
    r"adapter\.safetensors",
)


def snapshot(repo_id: str, subfolder: str = "", *, with_weights: bool = True) -> pathlib.Path:
    """The folder of a Hub model in the cache, after download of what is not there yet.

    Args:
      repo_id: OWNER/NAME.
      subfolder: the only folder of a pipeline that is needed; by default all that pea_jax reads.
      with_weights: whether the weights are needed.

    Raises:
      PeaError: huggingface_hub is not installed; or the model is not in the cache and cannot be had from the Hub,
        with the command that downloads it.
      OSError: the cache cannot be written.
    """
    hub = _huggingface_hub(repo_id)
    try:
        files = needed_files(hub.HfApi().list_repo_files(repo_id), subfolder, with_weights)
        return pathlib.Path(hub.snapshot_download(repo_id, allow_patterns=files))
    except Exception as error:  # no network is one of many exceptions, of two HTTP libraries
        if (path := _cached(hub, repo_id, subfolder, with_weights)) is not None:
            return path
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            raise
        raise PeaError(f"{repo_id!r}: {_reason(error)}; {_advice(repo_id, subfolder, with_weights)}") from error


def needed_files(files: Iterable[str], subfolder: str = "", with_weights: bool = True) -> list[str]:
    """Of a repository's files: configs and tokenizers, and the weights in one format and one precision a folder."""
    files = list(files)
    if subfolder:
        folders: tuple[str, ...] = ("", subfolder)
    else:
        folders = ("", *PIPELINE_FOLDERS) if "model_index.json" in files else ("",)
    result = []
    for folder in folders:
        names = [file.removeprefix(folder).lstrip("/") for file in files if file.rpartition("/")[0] == folder]
        result += [f"{folder}/{name}".lstrip("/") for name in names if name.endswith(TEXT_SUFFIXES)]
        # Beside the folders of a pipeline lie single-file copies of it.
        if with_weights and (folder or len(folders) == 1):
            result += [f"{folder}/{name}".lstrip("/") for name in _weights(names)]
    return result


def _weights(names: list[str]) -> list[str]:
    for pattern in WEIGHTS:
        if found := [name for name in names if re.fullmatch(pattern, name)]:
            return found
    return []


def _cached(hub: Any, repo_id: str, subfolder: str, with_weights: bool) -> pathlib.Path | None:
    """The snapshot in the cache if it has all folders, and weights in each that has a model."""
    for name in [f"{subfolder}/config.json"] if subfolder else ["model_index.json", *CONFIGS]:
        path = hub.try_to_load_from_cache(repo_id, name)
        if isinstance(path, str):
            root = pathlib.Path(path).parents[name.count("/")]
            index = json.loads(pathlib.Path(path).read_bytes()) if name == "model_index.json" else {subfolder: None}
            folders = [root / folder for folder in ("", *PIPELINE_FOLDERS) if folder in index]
            return root if all(_is_whole(folder, with_weights) for folder in folders) else None
    return None


def _is_whole(folder: pathlib.Path, with_weights: bool) -> bool:
    if not folder.is_dir():
        return False
    names = [path.name for path in folder.iterdir()]
    return not with_weights or not set(CONFIGS) & set(names) or bool(_weights(names))


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    if kind == "OfflineModeIsEnabled":
        return "not in the cache, and HF_HUB_OFFLINE forbids to download it"
    if kind == "GatedRepoError":
        return "its owner wants you to accept a licence on huggingface.co, and then `hf auth login`"
    if kind in ("RepositoryNotFoundError", "HFValidationError"):
        return "neither a folder here nor a model on the Hugging Face Hub (if it is private: `hf auth login`)"
    return f"neither a folder here nor in the cache, and the Hugging Face Hub cannot be reached ({kind})"


def _advice(repo_id: str, subfolder: str, with_weights: bool) -> str:
    """The Hub's own command cannot choose one format and one precision of the weights; `snapshot` does."""
    patterns = [f"{subfolder}/*"] if subfolder else [f"*{suffix}" for suffix in TEXT_SUFFIXES]
    command = " ".join([f"hf download {repo_id}", *(f'--include "{pattern}"' for pattern in patterns)])
    if with_weights and not subfolder:
        command = f"python -c \"from pea_jax.weights import hub; hub.snapshot('{repo_id}')\""
    return f"download it where there is a network with `{command}`, or give the path of a folder that holds it"


def _huggingface_hub(repo_id: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise PeaError(
            f"{repo_id!r}: no such folder, and models of the Hugging Face Hub take a package: "
            "run `pip install huggingface_hub`"
        ) from error
    return huggingface_hub
