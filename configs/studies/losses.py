"""Study 1: which loss does the work?

The paper (PEA-Diffusion, arXiv 2311.17086) reports for its features, its output and both together; the text embeddings
alone are its baseline "text-encoder KD". Noise is the plain diffusion loss on the pictures, no teacher asked.

    python -m benchmarks.studies --study losses --workdir runs/studies
"""

from typing import Any

from benchmarks.studies.study import Study, Variant


def _weights(**given: float) -> dict[str, Any]:
    names = ("noise", "output", "features", "conditioning")
    return {f"loss.{name}": given.get(name, 0.0) for name in names}


STUDY = Study(
    title="Which loss does the work?",
    variants=(
        Variant("noise only", {**_weights(noise=1.0), "loss.hybrid": False}),
        Variant("output only", _weights(output=1.0)),
        Variant("features only", _weights(features=0.1)),
        Variant("output and features", _weights(output=1.0, features=0.1)),
        Variant("text embeddings only", _weights(conditioning=1.0)),
        Variant("output, features and text embeddings"),
    ),
)
