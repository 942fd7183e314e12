"""Train and judge what a study still lacks; see the package."""

import dataclasses
import pathlib

from absl import flags

from benchmarks.studies.ledger import Ledger
from benchmarks.studies.runs import Runner
from benchmarks.studies.study import ROOT, SEEDS, Study, load, study_names
from pea_jax import command
from pea_jax.errors import PeaError
from pea_jax.train import WORKDIR

STUDY = flags.DEFINE_multi_enum("study", None, study_names(), "Which; may be given several times")
OUT = flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results" / "studies"), "Where the finished runs are noted")
SEED = flags.DEFINE_multi_integer("seed", SEEDS, "Of which runs; may be given several times")
VARIANT = flags.DEFINE_multi_string("variant", None, "Only this one; may be given several times")


def main() -> None:
    if not STUDY.value or WORKDIR.value is None:
        raise PeaError(f"--study and --workdir are both needed; studies: {', '.join(study_names())}")
    command.check_folder("--workdir", pathlib.Path(WORKDIR.value))
    command.check_folder("--out", pathlib.Path(OUT.value))
    runner = Runner(pathlib.Path(WORKDIR.value), Ledger(pathlib.Path(OUT.value)))
    for name in STUDY.value:
        runner.run(name, _narrowed(load(name), VARIANT.value), tuple(SEED.value))


def _narrowed(study: Study, labels: list[str] | None) -> Study:
    known = {variant.label: variant for variant in study.variants}
    if unknown := [label for label in labels or [] if label not in known]:
        raise PeaError(f"--variant {unknown[0]!r}: not in this study; it has {', '.join(map(repr, known))}")
    return dataclasses.replace(study, variants=tuple(known[label] for label in labels or known))


if __name__ == "__main__":
    command.run(main)
