"""The project's own files agree with one another and carry nothing of the machine they were written on."""

import pathlib
import re
import shlex
import subprocess
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])

MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:work|root|home|Users|tmp|opt|mnt)/\w")
REGISTRY_HOST = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|pypi\.python\.org|registry\.npmjs\.org|npmjs\.com|registry\.yarnpkg\.com"
    r"|deb\.debian\.org|security\.debian\.org|proxy\.golang\.org|crates\.io|conda\.anaconda\.org)\b"
)

# Modules without a test file of their own, and the one that runs them; the exception class has none.
TESTED_BY = {
    "errors.py": None,
    "adapter_folder.py": "test_train.py",
    "chips.py": "test_plan.py",
    "command.py": "test_train.py",
    "config.py": "test_train.py",
    "data/kept_files.py": "data/test_index_cache.py",
    "data/parquet_rows.py": "data/test_image_folder.py",
    "data/tar_headers.py": "data/test_tar_index.py",
    "data/tfds_source.py": "data/test_to_tfds.py",
    "distill/cache.py": "test_precompute.py",
    "distill/data.py": "test_train.py",
    "distill/judging.py": "test_train.py",
    "distill/models.py": "test_train.py",
    "distill/overview.py": "data/test_inspect.py",
    "distill/apart.py": "test_plan.py",
    "distill/planning.py": "test_plan.py",
    "distill/remembered.py": "test_plan.py",
    "hlo/program.py": "hlo/test_traffic.py",
    "distill/pictures.py": "test_train.py",
    "evaluate.py": "test_train.py",
    "export.py": "test_train.py",
    "distill/latents.py": "distill/test_task.py",
    "distill/losses.py": "distill/test_task.py",
    "distill/precomputed.py": "test_precompute.py",
    "mesh.py": "distill/test_step.py",
    "threads.py": "weights/test_torch_names.py",
    "models/splash.py": "models/test_attention.py",
    "models/config_fields.py": "models/test_unet_config.py",
    "models/controlnet_config.py": "models/test_controlnet.py",
    "models/unet_blocks.py": "models/test_unet.py",
    "models/unet_encoder.py": "models/test_unet.py",
    "models/unet_encoder_config.py": "models/test_unet_config.py",
    "models/vae_config.py": "models/test_vae.py",
    "pytorch/text_encoder.py": "pytorch/test_adapter.py",
    "text/networks.py": "text/test_architectures.py",
    "sampling/ddim.py": "sampling/test_schedulers.py",
    "sampling/dpmsolver.py": "sampling/test_schedulers.py",
    "sampling/euler.py": "sampling/test_schedulers.py",
    "sampling/lcm.py": "sampling/test_schedulers.py",
    "sampling/noise.py": "sampling/test_drawing.py",
    "sampling/noise_schedule.py": "sampling/test_schedulers.py",
    "sampling/sampler.py": "sampling/test_schedulers.py",
    "sampling/scheduler_config.py": "sampling/test_schedulers.py",
    "sampling/timesteps.py": "sampling/test_schedulers.py",
    "judging/distances.py": "judging/test_comparison.py",
    "judging/picture_files.py": "judging/test_comparison.py",
    "judging/systems.py": "judging/test_evaluation.py",
    "judging/tables.py": "judging/test_report.py",
    "weights/clip_vision.py": "judging/test_clip.py",
    "weights/vision_files.py": "judging/test_clip.py",
    "models/image_reward.py": "judging/test_image_reward.py",
    "weights/image_reward.py": "judging/test_image_reward.py",
    "weights/inception.py": "models/test_inception.py",
    "weights/abstract.py": "distill/test_abstract.py",
    "weights/stored.py": "weights/test_torch_names.py",
    "weights/altclip.py": "models/test_altclip.py",
    "weights/config_files.py": "weights/test_mutated_files.py",
    "weights/text_files.py": "weights/test_transformers.py",
    "weights/text_networks.py": "weights/test_dual_encoders.py",
    "weights/lora_alphas.py": "weights/test_lora.py",
    "weights/lora_layouts.py": "weights/test_lora.py",
    "weights/model_files.py": "weights/test_diffusers.py",
    "weights/single_file_configs.py": "weights/test_single_file.py",
    "weights/quantised.py": "weights/test_transformers.py",
    "weights/t5.py": "models/test_t5.py",
}


def tracked_files() -> list[pathlib.Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).exists()]


def text_of(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""  # a picture, an archive, weights


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST], ids=["machine path", "registry host"])
def test_tracked_files_name_no(pattern: re.Pattern):
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked_files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]
    assert not hits, "\n".join(hits)


def test_every_module_has_a_test_file():
    package = ROOT / "pea_jax"
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.name != "__init__.py"}
    own = {name: str(pathlib.Path(name).with_name(f"test_{pathlib.Path(name).name}")) for name in modules}
    tests = own | TESTED_BY
    assert not [name for name, test in tests.items() if test and not (ROOT / "tests" / test).exists()]
    assert modules >= set(TESTED_BY), "TESTED_BY names a module that is gone"


def commands(document: pathlib.Path) -> list[list[str]]:
    """The shell commands in the indented or fenced blocks of a Markdown file, one list of words each."""
    text = document.read_text().replace("\\\n", " ")
    lines = re.findall(r"^\s*(?:\$ )?((?:make|python|\.venv/bin/python|git|pip) .*)$", text, re.M)
    return [shlex.split(line, comments=True) for line in lines]


def test_the_readme_starts_with_the_two_commands():
    made = [words for words in commands(ROOT / "README.md") if words[0] == "make"]
    assert made[:2] == [["make", "demo"], ["make", "test"]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_commands_exist(document: pathlib.Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for words in commands(document):
        if words[0] == "make":
            assert set(words[1:]) <= targets, words
        if "-m" in words and words[2].startswith("pea_jax."):
            source = (ROOT / words[2].replace(".", "/")).with_suffix(".py").read_text()
            unknown = [word for word in words if word.startswith("--") and word[2:].split(".")[0] not in source]
            assert not unknown, f"{words}: {unknown}"
        if "--config" in words:
            assert (ROOT / words[words.index("--config") + 1].split(":")[0]).exists(), words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: pathlib.Path):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text())
    assert not [link for link in links if not (document.parent / link).exists()]


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    names = {re.match(r"[\w-]+", requirement)[0].replace("-", "_").lower() for requirement in requirements}
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.M)
    assert names - {"pea_jax"} <= {name.replace("-", "_").lower() for name in pins}
