"""The import contracts of pyproject.toml hold, and break when an import runs the wrong way."""

import pathlib
import shutil
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TORCH_SIDE = ("torch", "transformers", "diffusers")
JAX_SIDE = ("jax", "flax", "optax", "orbax", "grain", "ml_collections")


@pytest.fixture
def package(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of pea_jax beside a copy of pyproject.toml, to be spoilt."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "pea_jax", tmp_path / "pea_jax", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "pea_jax"


def lint_imports(folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Runs import-linter as `make lint` does, in `folder`."""
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_layers_hold(package: pathlib.Path):
    result = lint_imports(package.parent)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("models/layers.py", "import pea_jax.weights", "Imports run downwards"),
        ("models/layers.py", "def late():\n    from pea_jax.distill import step", "Imports run downwards"),
        ("errors.py", "from pea_jax.models import layers", "Imports run downwards"),
        ("sampling/schedulers.py", "import pea_jax.train", "Imports run downwards"),
        ("stray.py", "", "Imports run downwards"),
        ("models/layers.py", "import pea_jax.config", "Imports run downwards"),
        ("pytorch/__init__.py", "from pea_jax.sampling import schedulers", "Imports run downwards"),
        ("pytorch/__init__.py", "from pea_jax.models import layers", "PyTorch users load no JAX"),
        ("weights/stored.py", "import jax", "PyTorch users load no JAX"),
    ],
)
def test_a_violation_is_found(package: pathlib.Path, module: str, line: str, contract: str):
    path = package / module
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + line + "\n")
    result = lint_imports(package.parent)
    assert result.returncode == 1
    assert any(contract in row and "BROKEN" in row for row in result.stdout.splitlines()), result.stdout


def import_all(modules: list[str], without: tuple[str, ...], root: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
    """Imports `modules` in one fresh interpreter in which the packages `without` are not installed."""
    code = f"""
        import importlib, sys
        from absl import flags
        sys.modules.update(dict.fromkeys({without!r}))
        for name in {modules!r}:
            importlib.import_module(name)
            for flag in list(flags.FLAGS):
                delattr(flags.FLAGS, flag)  # two commands may have a flag of the same name
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=root, capture_output=True, text=True)


def modules_under(folder: pathlib.Path) -> list[str]:
    paths = (path.relative_to(ROOT).with_suffix("") for path in sorted(folder.rglob("*.py")))
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


def test_everything_but_pytorch_imports_without_pytorch():
    pytorch = modules_under(ROOT / "pea_jax" / "pytorch")
    modules = [name for name in modules_under(ROOT / "pea_jax") if name not in pytorch]
    result = import_all(modules, without=TORCH_SIDE)
    assert result.returncode == 0, result.stderr


def test_pytorch_imports_without_jax():
    result = import_all(modules_under(ROOT / "pea_jax" / "pytorch"), without=JAX_SIDE)
    assert result.returncode == 0, result.stderr


def test_jax_in_pytorch_is_found(package: pathlib.Path):
    (package / "pytorch").mkdir(exist_ok=True)
    (package / "pytorch" / "__init__.py").write_text("import jax\n")
    result = import_all(["pea_jax.pytorch"], without=JAX_SIDE, root=package.parent)
    assert "ModuleNotFoundError" in result.stderr
