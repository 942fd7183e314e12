"""Study 6: does the size of the base model matter?

Two more English models, trained as the shipped one with narrower and with wider UNets. They come first, each in one
command that may be killed and goes on:

    python -m tools.teacher.sizes --size small --workdir runs/studies/teachers
    python -m tools.teacher.sizes --size large --workdir runs/studies/teachers
    python -m benchmarks.studies --study base_models --workdir runs/studies

The distance is to the pictures of the teacher of the same size.
"""

from benchmarks.studies.study import Study, Variant

STUDY = Study(
    title="Does the size of the base model matter?",
    variants=(
        Variant("small", {"base_model": "runs/studies/teachers/small/model"}),
        Variant("as shipped, 14.0M"),
        Variant("large", {"base_model": "runs/studies/teachers/large/model"}),
    ),
)
