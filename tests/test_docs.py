"""The documentation: its site builds without a warning, and its commands run as they stand.

A command stands in a block of shell. One that needs what a test machine has not, or an hour, says so in the title of
its block; all others are run, in the order of their page, on a dozen emoji.
"""

import os
import pathlib
import pkgutil
import re
import shlex
import subprocess
import sys

import pytest

from pea_jax import data, metrics, pytorch, sampling, weights
from tests.commands import write_shard

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCES = re.compile(
    r'^```(?P<language>\w*)(?:[^\n]*?title="(?P<title>[^"]*)")?[^\n]*\n(?P<body>.*?)^```$', re.MULTILINE | re.DOTALL
)
STARTS = r"(?:\.venv/bin/|launch/|benchmarks/|make |python |pip |hf |git )"
SMALL = {
    "linear_start": 4,
    "batch_size": 4,
    "num_steps": 2,
    "log_every": 1,
    "checkpoint.every": 1,
    "sample.every": 2,
    "sample.count": 2,
    "sample.steps": 2,
    "evaluation.steps": 2,
    "evaluation.seen": 4,
    "evaluation.batch_size": 4,
}
TAKING_CONFIGS = re.compile(r"-m pea_jax\.(train|precompute|evaluate|plan|data\.inspect) ")


def blocks(page: pathlib.Path, language: str) -> list[str]:
    """What stands in the blocks of a language that have no title."""
    found = FENCES.finditer(page.read_text())
    return [block["body"] for block in found if block["language"] == language and block["title"] is None]


def run_here(command: str, folder: pathlib.Path) -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(folder)}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_stand_in_blocks_of_shell(page: pathlib.Path):
    indented = re.findall(rf"^    (?:\$ )?{STARTS}.*$", FENCES.sub("", page.read_text()), re.M)
    assert not indented, "a command without ```sh around it"
    inline = re.findall(r"`[^`\n]*python -m (?:benchmarks\.|[^`\s]+ )[^`]*`", FENCES.sub("", page.read_text()))
    assert not inline, "a command that no test runs and nothing marks with what it needs; names of modules may stand so"
    others = [each["body"] for each in FENCES.finditer(page.read_text()) if each["language"] not in ("sh", "python")]
    assert not re.findall(rf"^{STARTS}.*$", "\n".join(others), re.M), "a command in a block that is not of shell"


def test_the_site_builds(tmp_path: pathlib.Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "load_unet" in (tmp_path / "reference" / "weights.html").read_text()


def test_the_reference_has_what_packages_offer_and_pages_import():
    """All of `__all__` and of the metrics, and what stands in an example."""
    pages = {page: page.read_text() for page in PAGES}
    named = set(re.findall(r"^::: (\S+)$", "\n".join(pages.values()), re.M))
    packages = (data, pytorch, sampling, weights)
    offered = {f"{package.__name__}.{name}" for package in packages for name in package.__all__}
    offered |= {f"{metrics.__name__}.{module.name}" for module in pkgutil.iter_modules(metrics.__path__)}
    imported = re.findall(r"^from (pea_jax\S*) import (.*)$", "\n".join(pages.values()), re.M)
    offered |= {f"{module}.{name}" for module, names in imported for name in names.split(", ")}
    found = {name: pkgutil.resolve_name(name) for name in sorted(offered)}
    homes = {name: getattr(each, "__module__", name) for name, each in found.items()}
    assert not {name: home for name, home in homes.items() if home not in named}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder that looks like a clone, with a dozen emoji for data, after the quick start."""
    tmp_path = tmp_path_factory.mktemp("clone")
    for name in ("assets", "benchmarks", "configs", "examples", "launch", "pea_jax", "tools", "Makefile", ".venv"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    write_shard(tmp_path / "train.tar", "emoji-train-00000.tar", 12)
    write_shard(tmp_path / "val.tar", "emoji-val-00000.tar", 4)
    run_here(small("make demo"), tmp_path)
    return tmp_path


def small(command: str) -> str:
    """The command as it stands, with the fields of `SMALL` after a config."""
    fields = {**SMALL, "data.train": "train.tar", "data.english": "val.tar", "data.validation": "val.tar"}
    given = " ".join(f"--config.{field}={shlex.quote(str(value))}" for field, value in fields.items())
    if command.startswith("make demo"):
        return f"make -o .venv/base.stamp demo DEMO_CONFIG={shlex.quote('configs/ru.py:emoji ' + given)}"
    return f"{command} {given}" if TAKING_CONFIGS.search(command) else command


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_run(page: pathlib.Path, clone: pathlib.Path):
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    for command in lines:
        if not command.startswith("make test"):
            run_here(small(command), clone)
    for number, body in enumerate(blocks(page, "python")):
        (clone / f"example_{number}.py").write_text(body)
        run_here(f".venv/bin/python example_{number}.py", clone)
