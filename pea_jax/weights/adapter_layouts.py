"""The layouts in which adapters of PEA-Diffusion are published, under the names that `adapter.PEAdapter` has.

| layout | tensors | what it is |
|---|---|---|
| oldest | `layernorm` `fc1` `fc2` `fc3`, all with bias | `fc3(gelu(fc2(gelu(fc1(x)))))`, pooled before the last GELU |
| three linears | `layernorm` `projector.0` `.2` `.4` without bias, `fc` | the same with one linear more |
| four linears | `layernorm` `projector.0` `.2` `.4` `.6` without bias, `fc` | and one more |
| Stable Diffusion 1.5 | `layernorm`, `projector` of three or five linears without bias | no `fc`, nothing pooled |

All but the oldest have their names already. Widths are in the shapes; the files are pickled or safetensors. A directory
that this package writes holds one of them, and a `config.json` that says what it goes with.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.weights.checkpoint_files import open_file
from pea_jax.weights.hub import REPO_ID
from pea_jax.weights.locations import locate
from pea_jax.weights.stored import StoredArray

WEIGHTS, CONFIG = "adapter.safetensors", "config.json"
FIELDS: dict[str, type] = {"base_model": str, "text_encoder": dict, "training": dict}  # of config.json
OLDEST = {"fc1": "projector.0", "fc2": "projector.2", "fc3": "fc"}
WEIGHT = re.compile(r"projector\.(\d+)\.weight")


def open_published(path: pathlib.Path) -> dict[str, StoredArray]:
    """The tensors of an adapter in any layout, by the names of `PEAdapter`.

    Raises:
      PeaError: the file is missing or broken, or no adapter.
    """
    stored = open_file(path)
    tensors = {_current_name(name): tensor for name, tensor in stored.items()}
    check_layout(tensors, source=str(path))
    return tensors


def check_layout(tensors: Mapping[str, StoredArray], *, source: str) -> list[int]:
    """The places of the projector's linears, `[0, 2, ...]`, in tensors under current names.

    Raises:
      PeaError: naming `source`, if these are not the tensors of an adapter.
    """
    places = sorted(int(match[1]) for match in map(WEIGHT.fullmatch, tensors) if match)
    half_a_layer = "fc.bias" in tensors and "fc.weight" not in tensors
    if not places or places != list(range(0, 2 * len(places), 2)) or half_a_layer:
        raise PeaError(
            f"{source}: not an adapter (expects layernorm, projector.0, projector.2, ... and, but for Stable "
            "Diffusion 1.5, fc; or layernorm, fc1, fc2, fc3)"
        )
    return places


def find_adapter(name: str | pathlib.Path) -> pathlib.Path:
    """An adapter directory: the path itself, or OWNER/NAME of an adapter on the Hugging Face Hub, downloaded.

    Raises:
      PeaError: as for `locate`, where there is no such folder and it might be a name; or it is the work directory in
        which the adapter lies.
    """
    path = pathlib.Path(name)
    if (inside := path / "adapter" / WEIGHTS).is_file() and not (path / WEIGHTS).exists():
        raise PeaError(f"{path}: is no adapter but has one in it; name {inside.parent}")
    return locate(name) if not path.exists() and REPO_ID.fullmatch(str(name)) else path


def read_config(folder: str | pathlib.Path) -> dict[str, Any]:
    """`config.json` of an adapter directory.

    Raises:
      PeaError: it is missing, no JSON object, or one of its `FIELDS` is of the wrong type.
    """
    path = find_adapter(folder) / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except PermissionError:
        raise
    except OSError:
        raise PeaError(f"{path}: no such file; an adapter is a directory written by training or export") from None
    except ValueError as error:
        raise PeaError(f"{path}: not valid JSON ({error}); copy or export the adapter again") from None
    if not isinstance(config, dict):
        raise PeaError(f"{path}: must be a JSON object; copy or export the adapter again")
    wrong = [name for name, kind in FIELDS.items() if not isinstance(config.get(name, kind()), kind)]
    if wrong:
        raise PeaError(f"{path}: {', '.join(wrong)} of the wrong type; copy or export the adapter again")
    return config


def _current_name(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    return f"{OLDEST[layer]}.{kind}" if layer in OLDEST else name
