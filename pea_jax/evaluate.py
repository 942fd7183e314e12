"""Judge an adapter by retrieval: is the picture nearest to what it drew the one that was named?

    python -m pea_jax.evaluate --adapter runs/ru-emoji/adapter --config configs/ru.py:emoji --out report.json

Beside the adapter: the English teacher (the ceiling), an untrained adapter, and any given with --compare NAME=DIR.
"""

import json
import pathlib

from absl import flags
from ml_collections import ConfigDict, config_flags

from pea_jax import command
from pea_jax import config as configs
from pea_jax import mesh as meshes
from pea_jax.adapter import PEAdapter
from pea_jax.distill import data, models
from pea_jax.distill.judging import Judge, Judgement, read_concepts, report, table
from pea_jax.errors import PeaError
from pea_jax.report import console
from pea_jax.text.conditioner import AdapterConditioner
from pea_jax.weights.adapter_layouts import read_config

ADAPTER = flags.DEFINE_string("adapter", None, "Adapter directory")
CONFIG = config_flags.DEFINE_config_file("config", None, "Whose data and base model to judge on")
COMPARE = flags.DEFINE_multi_string("compare", [], "Another adapter, NAME=DIR; may be given several times")
OUT = flags.DEFINE_string("out", None, "JSON file to write")


def main() -> None:
    if ADAPTER.value is None or CONFIG.value is None or OUT.value is None:
        raise PeaError("--adapter, --config and --out are all needed")
    config, out = CONFIG.value, pathlib.Path(OUT.value)
    configs.check(config)
    command.check_file("--out", out)
    folders = {"adapter": ADAPTER.value} | dict(_named(text) for text in COMPARE.value)
    for folder in folders.values():
        _check_base(folder, config.base_model)
    results = evaluate(config, folders)
    console.print(table(results))
    with command.whole_file("--out", out) as partial:
        partial.write_text(json.dumps(report(results, config, folders), indent=2, ensure_ascii=False) + "\n")


def evaluate(config: ConfigDict, folders: dict[str, str]) -> list[Judgement]:
    """The teacher, the adapters in `folders` by name, and an untrained one; what is quick to read comes first."""
    adapters = {name: PEAdapter.from_pretrained(folder) for name, folder in folders.items()}
    concepts = read_concepts(config)
    mesh = meshes.make_mesh(**config.mesh)
    frozen = models.load_models(config, mesh)
    judge = Judge(config, concepts, frozen, mesh)
    for name, folder in folders.items():
        judge.pipeline.check(adapters[name].dims, folder)
    adapters["untrained"] = models.new_adapter(config, frozen, data.initial_states(config, frozen))
    conditioners = {name: AdapterConditioner(frozen.student, adapter) for name, adapter in adapters.items()}
    return judge.compare(conditioners)


def _named(text: str) -> tuple[str, str]:
    name, separator, folder = text.partition("=")
    if not separator or name in ("adapter", "untrained"):
        raise PeaError(f"--compare {text}: must be NAME=DIR, the name neither adapter nor untrained")
    return name, folder


def _check_base(folder: str, base_model: str) -> None:
    found = read_config(folder).get("base_model")
    if found != base_model:
        raise PeaError(f"{folder}: this adapter was made for {found!r}, the config has base_model={base_model!r}")


if __name__ == "__main__":
    command.run(main)
