"""What a figure needs beside it to mean something: date, device, versions."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "torch", "diffusers", "transformers")


def surroundings() -> dict[str, Any]:
    """Date, processor and versions of what is installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return dict(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        processor=_of_processor("model name") or platform.processor(),
        vectors=_vectors(),
        cores=os.cpu_count(),
        python=platform.python_version(),
        versions=versions,
    )


def write(path: pathlib.Path, result: dict[str, Any]) -> None:
    """`result` and its surroundings as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(surroundings() | result, indent=2, ensure_ascii=False) + "\n")


def _vectors() -> str | None:
    """The widest vector instructions of an x86 processor: one name stands for some with AVX-512 and some without."""
    flags = _of_processor("flags").split()
    return next((flag for flag in ("avx512f", "avx2") if flag in flags), None)


def _of_processor(field: str) -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(field)), "")
