"""The paper's claims and its open questions, asked of the embedded emoji model: one config and one command a study.

    python -m benchmarks.studies --study losses --workdir runs/studies
    python -m benchmarks.studies.tables

The first trains and judges what no line of `benchmarks/results/studies/*.jsonl` has yet, and adds a line for each run;
killed, it goes on from the last checkpoint of the run it was in. The second writes the tables in `docs/results.md`.
"""
