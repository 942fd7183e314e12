"""An adapter directory on the Hugging Face Hub: what goes there, with a picture of what it draws."""

import json
import pathlib
import re
import shutil
from typing import Any

from pea_jax.adapter import CARD, SAMPLES
from pea_jax.errors import PeaError
from pea_jax.report import console
from pea_jax.weights.adapter_layouts import CONFIG
from pea_jax.weights.hub import REPO_ID
from pea_jax.weights.locations import SEPARATOR, is_here

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
PICTURE = "\n## Samples\n\n![{title}](samples.png)\n"


def check(repo_id: str, *, dry_run: bool) -> None:
    """Refuse what cannot succeed, before any work is done.

    Args:
      repo_id: USER/NAME on the Hub.
      dry_run: nothing will be sent, so no token is needed.

    Raises:
      PeaError: `repo_id` is no such name, huggingface_hub is not installed, or there is no token.
    """
    if not REPO_ID.fullmatch(repo_id):
        raise PeaError(f"--push_to_hub {repo_id}: must be USER/NAME, as on the Hugging Face Hub")
    if not dry_run and not _huggingface_hub().get_token():
        raise PeaError("--push_to_hub: no token of the Hugging Face Hub; run `hf auth login`, or set HF_TOKEN")


def check_license(name: str) -> None:
    """Refuse what the Hub would not take for a licence.

    Raises:
      PeaError: it is more than one word of small letters, digits, dots, pluses and hyphens.
    """
    if not LICENSE.fullmatch(name):
        raise PeaError(
            f"--license {name}: must be as the Hugging Face Hub names it, e.g. apache-2.0, openrail++, other"
        )


def check_samples(picture: pathlib.Path) -> None:
    """Refuse what `add_samples` would.

    Raises:
      PeaError: it is no PNG file.
    """
    if not picture.is_file() or picture.read_bytes()[:4] != b"\x89PNG":
        raise PeaError(f"{picture}: not a PNG file; name one with --samples")


def add_samples(folder: pathlib.Path, picture: pathlib.Path, title: str) -> None:
    """Put a picture beside the adapter, and into its card; raises as `check_samples`."""
    check_samples(picture)
    shutil.copyfile(picture, folder / SAMPLES)
    card = folder / CARD
    card.write_text(card.read_text("utf-8") + PICTURE.format(title=title), "utf-8")


def samples_at(workdir: pathlib.Path, step: int) -> pathlib.Path | None:
    """The sheet that a training drew at that step, or the last one before; None: there is none."""
    sheets = ((path.stem.removeprefix("step_"), path) for path in (workdir / "samples").glob("step_*.png"))
    steps = {int(number): path for number, path in sheets if number.isdecimal()}  # a user may keep copies there
    return steps[max(drawn)] if (drawn := [each for each in steps if each <= step]) else None


def publish(folder: pathlib.Path, repo_id: str, *, private: bool = False, dry_run: bool = False) -> None:
    """Send an adapter directory to the Hub, or say what would be sent; a repository that is there gets a new commit.

    Raises:
      PeaError: as for `check`, or the Hub refuses.
    """
    check(repo_id, dry_run=dry_run)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kind = "private" if private else "public"
    console.print(f"{'would go' if dry_run else 'going'} to huggingface.co/{repo_id} ({kind}):", soft_wrap=True)
    for path in files:
        console.print(f"  {path.relative_to(folder)}  {path.stat().st_size:,} bytes", soft_wrap=True)
    for name in _only_here(folder):
        console.print(f"{name} is on this machine: who loads the adapter needs it there too", soft_wrap=True)
    if not dry_run:
        _send(folder, repo_id, private)


def _only_here(folder: pathlib.Path) -> list[str]:
    """Models that its config.json names and the Hub has not."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    encoders = config.get("text_encoder", {}).get("id", "").split(SEPARATOR)
    return [name for name in (config.get("base_model"), *encoders) if name and is_here(name)]


def _send(folder: pathlib.Path, repo_id: str, private: bool) -> None:
    api = _huggingface_hub().HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        sent = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Adapter")
    except Exception as error:  # no network is one of many exceptions, of two HTTP libraries
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        again = f"the adapter is in {folder}; send it with `hf upload {repo_id} {folder}`"
        raise PeaError(f"--push_to_hub {repo_id}: the Hub does not take it ({reason}); {again}") from error
    console.print(f"sent: {sent}", soft_wrap=True)


def _huggingface_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise PeaError("--push_to_hub: takes a package: run `pip install huggingface_hub`") from error
    return huggingface_hub
