"""How far a system's pictures are from those of a folder, all together: FID, KID, CMMD."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from pea_jax.judging.picture_files import opened
from pea_jax.metrics.frechet import cmmd, frechet_distance, kernel_distance

Features = Callable[[Iterable[Image.Image]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Distance:
    """`spread` is the standard deviation over KID's subsets, None for the others."""

    metric: str
    system: str
    value: float
    spread: float | None
    pictures: int
    reference: int


def distances(
    systems: Mapping[str, Sequence[pathlib.Path]],
    reference: Sequence[pathlib.Path],
    *,
    inception: Features | None = None,
    clip: Features | None = None,
    seed: int = 0,
) -> list[Distance]:
    """FID and KID where there are Inception's features, CMMD where there are CLIP's.

    Args:
      systems: the pictures of each; one with fewer than two has no distances.
      reference: those of the folder.
      inception, clip: what gives the features of pictures.
      seed: of KID's subsets.
    """
    results, enough = [], {system: paths for system, paths in systems.items() if len(paths) > 1}
    for kind, features in (("inception", inception), ("clip", clip)):
        if features is None:
            continue
        theirs = features(opened(reference))
        for system, paths in enough.items():
            ours = features(opened(paths))
            counts = dict(pictures=len(ours), reference=len(theirs))
            if kind == "clip":
                results.append(Distance("CMMD", system, cmmd(ours, theirs), None, **counts))
                continue
            results.append(Distance("FID", system, frechet_distance(ours, theirs), None, **counts))
            kid = kernel_distance(ours, theirs, seed=seed)
            results.append(Distance("KID", system, kid.value, kid.spread, **counts))
    return results
