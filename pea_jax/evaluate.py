r"""Judge adapters: by retrieval on a config's corpus, on prompts of your own, or folders of pictures by themselves.

    python -m pea_jax.evaluate --adapter runs/ru-emoji/adapter --config configs/ru.py:emoji --out report.json

Is the picture nearest to what was drawn the one that was named? Beside the adapter: the English teacher (the ceiling),
an untrained adapter, and any given with --compare NAME=DIR.

    python -m pea_jax.evaluate --adapter DIR --config configs/ru.py --prompts assets/prompts/ru.jsonl \
        --clip facebook/metaclip-2-worldwide-huge-quickgelu --out report.json

Every system draws every prompt, from the same noise; scores, intervals and pictures are in report.json, .md and .html.

    python -m pea_jax.evaluate --folder NAME=DIR --reference DIR --inception FILE --out report.json

FID and KID of pictures that are there already.
"""

import json
import pathlib
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from pea_jax import command, processes
from pea_jax import config as configs
from pea_jax import mesh as meshes
from pea_jax.adapter import PEAdapter
from pea_jax.distill import data, models
from pea_jax.distill.judging import TEACHER, Judge, Judgement, read_concepts, report, table
from pea_jax.errors import PeaError
from pea_jax.judging import evaluation
from pea_jax.judging.drawing import folder_name
from pea_jax.judging.evaluation import Evaluation, Judges
from pea_jax.judging.picture_files import pictures_in
from pea_jax.judging.prompts import Prompt, read_prompts, read_translations
from pea_jax.judging.report import MEANS, SAME_NOISE, PictureRow, as_html, as_json, as_markdown
from pea_jax.judging.systems import TRANSLATED, conditioner_of
from pea_jax.judging.tables import tables
from pea_jax.judging.translation import translate
from pea_jax.report import console
from pea_jax.sampling.noise import MOST_SEEDS
from pea_jax.text.conditioner import AdapterConditioner
from pea_jax.weights.adapter_layouts import read_config

ADAPTER = flags.DEFINE_string("adapter", None, "Adapter directory")
CONFIG = config_flags.DEFINE_config_file("config", None, "Whose data and base model to judge on")
COMPARE = flags.DEFINE_multi_string("compare", [], "Another adapter, NAME=DIR; may be given several times")
OUT = flags.DEFINE_string("out", None, "JSON file to write; with prompts or folders also .md and .html beside it")
PROMPTS = flags.DEFINE_string("prompts", None, "Prompts to judge on: one a line, or .jsonl with prompt, english, ...")
TRANSLATIONS = flags.DEFINE_string("translations", None, "English of the prompts: lines, or .jsonl with id, english")
TRANSLATOR = flags.DEFINE_string("translator", None, "Or a translation model of transformers: Marian, NLLB, ...")
PICTURES = flags.DEFINE_string("pictures", None, "Folder of what is drawn; by default beside --out")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Of the noise; a picture a prompt and seed")
FOLDER = flags.DEFINE_multi_string("folder", [], "Pictures that are there already, NAME=DIR")
CLIP = flags.DEFINE_string("clip", None, "CLIPScore of the prompts as they are, by this model; CMMD as well")
ENGLISH_CLIP = flags.DEFINE_string("english_clip", None, "CLIPScore of the English of the prompts, by this model")
PICK_SCORE = flags.DEFINE_string("pick_score", None, "PickScore by this model: yuvalkirstain/PickScore_v1")
IMAGE_REWARD = flags.DEFINE_string("image_reward", None, "ImageReward of the English of the prompts, by this file")
REFERENCE = flags.DEFINE_string("reference", None, "Folder of pictures that distances are measured to")
INCEPTION = flags.DEFINE_string("inception", None, "File of FID's Inception")
PICTURE_ROWS = flags.DEFINE_integer("picture_rows", 12, "Prompts whose pictures are in the report", lower_bound=0)

RESERVED = ("adapter", "untrained", TEACHER, TRANSLATED)


def main() -> None:
    if not OUT.value:
        raise PeaError("--out is needed: the JSON file to write")
    command.check_file("--out", out := pathlib.Path(OUT.value))
    if (PROMPTS.value or FOLDER.value) and out.suffix.lower() != ".json":  # beside which are .md, .html and pictures
        raise PeaError(f"--out {out}: the report is JSON; name {out.with_suffix('.json')}")
    _check_flags()
    if PROMPTS.value:
        on_prompts(PROMPTS.value, out)
    elif FOLDER.value:
        on_folders(out)
    else:
        on_corpus(out)


def _check_flags() -> None:
    """Refuses what would be left out without a word."""
    judges = (CLIP, ENGLISH_CLIP, PICK_SCORE, IMAGE_REWARD, REFERENCE, INCEPTION)
    named = (ADAPTER, PROMPTS, TRANSLATIONS, TRANSLATOR, PICTURES, *judges)
    if empty := [flag.name for flag in named if flag.value == ""]:  # as of a shell's variable that is not set
        raise PeaError(f"--{empty[0]}: is empty; say which, or leave it out")
    if PROMPTS.value and FOLDER.value:
        raise PeaError("--prompts and --folder: give one of them")
    if not PROMPTS.value and (alone := [flag.name for flag in (TRANSLATIONS, TRANSLATOR, PICTURES) if flag.value]):
        raise PeaError(f"--{alone[0]}: is of a prompt set; give --prompts as well")
    if not PROMPTS.value and not FOLDER.value and (given := [flag.name for flag in judges if flag.value]):
        raise PeaError(f"--{given[0]} judges pictures of prompts or in folders; give --prompts or --folder")
    if FOLDER.value and (given := [flag.name for flag in (ADAPTER, COMPARE, CONFIG) if flag.value]):
        raise PeaError(f"--{given[0]} and --folder: pictures that are there already are judged without; leave it out")
    if FOLDER.value and (PICK_SCORE.value or IMAGE_REWARD.value):
        raise PeaError("--pick_score and --image_reward judge a picture by its prompt; give --prompts")
    if PROMPTS.value and REFERENCE.value and not (INCEPTION.value or CLIP.value or ENGLISH_CLIP.value):
        raise PeaError("--reference needs --inception FILE (FID, KID), or --clip or --english_clip MODEL (CMMD)")


def on_corpus(out: pathlib.Path) -> None:
    """Retrieval of the concepts of the config's data."""
    if ADAPTER.value is None or CONFIG.value is None:
        raise PeaError("say what to judge: --adapter with --config, or --prompts with --config, or --folder")
    config = CONFIG.value
    configs.check(config)
    folders = _adapters(config)
    results = evaluate(config, folders)
    console.print(table(results))
    content = json.dumps(report(results, config, folders), indent=2, ensure_ascii=False) + "\n"
    _write(out, content)


def evaluate(config: ConfigDict, folders: dict[str, str]) -> list[Judgement]:
    """The teacher, the adapters in `folders` by name, and an untrained one; what is quick to read comes first."""
    adapters = {name: PEAdapter.from_pretrained(folder) for name, folder in folders.items()}
    concepts = read_concepts(config)
    mesh = meshes.make_mesh(**config.mesh)
    frozen = models.load_models(config, mesh)
    judge = Judge(config, concepts, frozen, mesh)
    for name, folder in folders.items():
        judge.pipeline.check(adapters[name].dims, folder)
    conditioners = {name: conditioner_of(config, frozen, folder, mesh) for name, folder in folders.items()}
    untrained = models.new_adapter(config, frozen, data.initial_states(config, frozen))
    return judge.compare({**conditioners, "untrained": AdapterConditioner(frozen.student, untrained)})


def on_prompts(file: str, out: pathlib.Path) -> None:
    """Systems side by side on a prompt set."""
    if CONFIG.value is None:
        raise PeaError("--config is needed beside --prompts: whose base model draws, and how")
    config, prompts = CONFIG.value, read_prompts(file)
    seeds = command.whole_numbers("--seeds", SEEDS.value, MOST_SEEDS - 1)
    configs.check(config)
    adapters, folder = _adapters(config), pathlib.Path(PICTURES.value or out.with_suffix(""))
    command.check_folder("--pictures", folder)
    with processes.first_goes_ahead("the translations"):
        translated = _translated(config.language, prompts, folder)
    found = evaluation.evaluate_prompts(config, prompts, adapters, translated, seeds, folder, _judges())
    made_from = dict(
        prompts=dict(file=file, count=len(prompts)),
        seeds=seeds,
        adapters=adapters,
        translations=TRANSLATOR.value or TRANSLATIONS.value,
        base_model=config.base_model,
        language=config.language,
        evaluation=dict(config.evaluation),
    )
    rows = evaluation.picture_rows(prompts, found.paths, PICTURE_ROWS.value)
    _report(out, found, made_from, rows, f"{config.language}: {file}")
    console.print(f"pictures in {folder}")


def on_folders(out: pathlib.Path) -> None:
    """Distances of folders of pictures to another one."""
    if REFERENCE.value is None or not (INCEPTION.value or CLIP.value or ENGLISH_CLIP.value):
        raise PeaError("--folder needs --reference DIR, and --inception FILE (FID, KID) or --clip MODEL (CMMD)")
    folders = _all_named("--folder", FOLDER.value)
    paths = {name: pictures_in(folder) for name, folder in folders.items()}
    distances = evaluation.judge_folders(_judges(), paths, meshes.make_mesh(), seed=0)
    found = evaluation.Evaluation([], distances, {})
    _report(out, found, dict(folders=folders), [], f"Distances to {REFERENCE.value}")


def _report(
    out: pathlib.Path, found: Evaluation, made_from: dict[str, Any], rows: list[PictureRow], title: str
) -> None:
    made, made_from = tables(found.results, found.distances), dict(made_from, judges=vars(_judges()), notes=found.notes)
    notes = [*([MEANS] if found.results else []), *([SAME_NOISE] if rows else []), *found.notes]
    contents = {
        ".md": as_markdown(title, made, rows, out.parent, notes),
        ".html": as_html(title, made, rows, notes),
        out.suffix: json.dumps(as_json(found.results, found.distances, made_from), indent=2, ensure_ascii=False) + "\n",
    }
    for suffix, content in contents.items():
        _write(out.with_suffix(suffix), content)
    for note in found.notes:
        console.print(note)
    for each in made:
        console.print(each.for_screen())


def _write(path: pathlib.Path, content: str) -> None:
    """By the first of several processes."""
    if processes.is_first():
        with command.whole_file("--out", path) as partial:
            partial.write_text(content, "utf-8")


def _judges() -> Judges:
    return Judges(
        clip=CLIP.value,
        english_clip=ENGLISH_CLIP.value,
        pick_score=PICK_SCORE.value,
        image_reward=IMAGE_REWARD.value,
        reference=REFERENCE.value,
        inception=INCEPTION.value,
    )


def _translated(language: str, prompts: list[Prompt], folder: pathlib.Path) -> list[str] | None:
    if TRANSLATIONS.value and TRANSLATOR.value:
        raise PeaError("--translations and --translator: give one of them")
    if TRANSLATIONS.value:
        return read_translations(TRANSLATIONS.value, prompts)
    return translate(TRANSLATOR.value, prompts, language, folder / "translations.jsonl") if TRANSLATOR.value else None


def _adapters(config: ConfigDict) -> dict[str, str]:
    """All adapter directories by name, each made for the config's base model."""
    folders = {"adapter": ADAPTER.value} if ADAPTER.value else {}
    folders |= _all_named("--compare", COMPARE.value)
    for folder in folders.values():
        found = read_config(folder).get("base_model")
        if found != config.base_model:
            raise PeaError(
                f"{folder}: this adapter was made for {found!r}, the config has base_model={config.base_model!r}"
            )
    return folders


def _all_named(flag: str, texts: list[str]) -> dict[str, str]:
    folders: dict[str, str] = {}
    for name, folder in (_named(flag, text) for text in texts):
        if same := next((other for other in folders if folder_name(other) == folder_name(name)), None):
            raise PeaError(f"{flag} {name}={folder}: there is {same}={folders[same]} already; give another name")
        folders[name] = folder
    return folders


def _named(flag: str, text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not name or not folder or folder_name(name) in map(folder_name, RESERVED):
        raise PeaError(f"{flag} {text}: must be NAME=DIR, and the name none of {', '.join(RESERVED)}")
    return name, folder


if __name__ == "__main__":
    command.run(main)
