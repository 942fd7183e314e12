"""Study 6: does the size of the base model matter?

Two more English models, trained as the shipped one with a narrower and with a wider UNet (`tools/teacher/sizes.py`).

    python -m benchmarks.studies --study base_models --workdir runs/studies

The distance is to the pictures of the teacher of the same size.
"""

from benchmarks.studies.study import Study, Variant

STUDY = Study(
    title="Does the size of the base model matter?",
    variants=(
        Variant("small, 4.5M", {"base_model": "assets/teachers/small"}),
        Variant("as shipped, 14.0M"),
        Variant("large, 28.8M", {"base_model": "assets/teachers/large"}),
    ),
)
