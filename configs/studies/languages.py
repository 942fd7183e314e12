"""Study 3: which languages can be learnt?

The paper's five (Russian, Chinese, Japanese, Korean, Italian), and four that are open: Turkish (agglutinative),
Vietnamese (tonal), German, Ukrainian. The same encoder, corpus, schedule and size for all.

    python -m benchmarks.studies --study languages --workdir runs/studies
"""

from benchmarks.studies.study import Study, Variant

LANGUAGES = {
    "ru": "Russian",
    "zh": "Chinese",
    "ja": "Japanese",
    "ko": "Korean",
    "it": "Italian",
    "tr": "Turkish",
    "vi": "Vietnamese",
    "de": "German",
    "uk": "Ukrainian",
}

STUDY = Study(
    title="Which languages can be learnt?",
    variants=tuple(Variant(name, language=language) for language, name in LANGUAGES.items()),
)
