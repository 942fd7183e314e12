"""Study 5: what must the data be? Quantity against quality, and pairs against native samples.

Fewer concepts; keywords of other concepts; words lost, moved and replaced, as careless translation does it; pictures of
other concepts, and none; little and much noise on them; samples that lose their English and are learnt from the picture
alone. `benchmarks/studies/records.py` says how. The names that are asked for stay the same: with a part of the
concepts, most of the `seen` ones were not seen.

    python -m benchmarks.studies --study data --workdir runs/studies
"""

from benchmarks.studies.records import Records
from benchmarks.studies.study import Study, Variant

STUDY = Study(
    title="What must the data be?",
    variants=(
        Variant("all pairs"),
        *(Variant(f"{share:.0%} of the concepts", records=Records(share=share)) for share in (0.05, 0.1, 0.25, 0.5)),
        *(
            Variant(f"keywords of others for {share:.0%}", records=Records(shuffled_keywords=share))
            for share in (0.5, 1.0)
        ),
        *(Variant(f"{rate:.0%} of the words damaged", records=Records(noise=rate)) for rate in (0.1, 0.25, 0.5)),
        Variant("pictures of others", records=Records(others_pictures=1.0)),
        Variant("timesteps of 600 and more", {"min_timestep": 600}),
        Variant("timesteps below 600", {"max_timestep": 600}),
        Variant("no pictures", records=Records(text_alone=True)),
        Variant("no pictures, timesteps of 600 and more", {"min_timestep": 600}, records=Records(text_alone=True)),
        *(Variant(f"{share:.0%} native", records=Records(native=share)) for share in (0.25, 0.5, 0.75, 1.0)),
    ),
)
