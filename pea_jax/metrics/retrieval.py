"""Retrieval: of all pictures of a corpus, is the one nearest to a generated picture the one that was named?

Nearness is `picture_distance`, chosen by how many originals of the emoji corpus still find themselves when damaged as
a small diffusion model or its autoencoder might damage them. Of 400 originals, all do after JPEG at quality 20, blur
of two pixels with 10% noise, patches of wrong colour, a tint with blur and noise, a shift by one pixel both ways,
averages over 4x4 pixels; of all 1,606, all do after the embedded teacher's autoencoder. What defeats it: another
picture shining through at a quarter (99.2%), a shift by two pixels (99.0%), a size 8% too small (98.5%). Over 17
kinds of damage the mean is 98.9%; 98.2% if the mean colour counts in full, 97.9% without the blur as well. Lab
colours, image pyramids and tolerance of shifts did not help; giving less weight to all low frequencies, or more to
gradients, did no better.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pea_jax.errors import PeaError
from pea_jax.metrics.intervals import Estimate, proportion

BLUR = 1.0  # standard deviation in pixels of a picture 64 high
MEAN_WEIGHT = 0.5
CHUNK = 256
# Families of the emoji corpus whose pictures differ by more than the gender of the same person: the male and the
# female sign (which have no family name), and a man in a suit and a woman in a flamenco dress, dancing.
NOT_GENDER_ONLY = ("", "=1F483")


def picture_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance `[N]` between the pictures `a` and `b`, both uint8 `[N, H, W, 3]`, pair by pair.

    Root mean square difference of the RGB values (sRGB as stored, 0 to 1) after a Gaussian blur with a standard
    deviation of one pixel in 64 (edge pixels repeated outwards), the picture's mean colour counting half: a tint, or
    the grey that noise leaves when it is clipped at white, matters less than a shape.

    Raises:
      PeaError: if the shapes differ.
    """
    if a.shape != b.shape:
        raise PeaError(f"pictures of shape {a.shape} and {b.shape} cannot be compared; they must be of one size")
    chunks = [slice(start, start + CHUNK) for start in range(0, len(a), CHUNK)]
    squares = [np.square(_features(a[chunk]) - _features(b[chunk])).mean(axis=1) for chunk in chunks]
    return np.sqrt(np.concatenate(squares)) if squares else np.zeros(0, np.float32)


class Retrieval:
    """Ranks pictures within a corpus by `picture_distance`.

    A picture is found if the nearest is the one named, one with the same pixels, or one that differs only by the gender
    of a person: one of the same family, but for `NOT_GENDER_ONLY`.
    """

    def __init__(self, pixels: np.ndarray, keys: Sequence[str], families: Sequence[str]):
        """`pixels` is uint8 `[N, H, W, 3]`; `families` names the concept that each picture is a version of."""
        self._shape = pixels.shape[1:]
        self._features = _features(pixels)
        self._square_norms = np.einsum("nd,nd->n", self._features, self._features)
        self._index = {key: i for i, key in enumerate(keys)}
        pairs = zip(keys, families, strict=True)
        concepts = np.array([f"key:{key}" if family in NOT_GENDER_ONLY else family for key, family in pairs])
        first_with: dict[bytes, int] = {}
        copies = np.array([first_with.setdefault(picture.tobytes(), i) for i, picture in enumerate(pixels)])
        # A set for each picture, as equal pixels may join two families only in part.
        self._accepted = [np.isin(copies, copies[concepts == concept]).nonzero()[0] for concept in concepts]

    def accepted(self, key: str) -> np.ndarray:
        """Numbers of the corpus pictures that count as `key`."""
        return self._accepted[self._index[key]]

    def rank(self, generated: np.ndarray, keys: Sequence[str]) -> np.ndarray:
        """Rank `[M]`, from 1, of the nearest accepted picture for `generated` uint8 `[M, H, W, 3]` named by `keys`.

        Raises:
          PeaError: if a key is not in the corpus, or the pictures have another size.
        """
        if unknown := [key for key in keys if key not in self._index]:
            raise PeaError(f"key {unknown[0]!r} is not in the corpus of {len(self._index)} pictures")
        if generated.shape != (len(keys), *self._shape):
            raise PeaError(f"generated pictures {generated.shape} must be {(len(keys), *self._shape)}, as the corpus")
        ranks = [_rank(row, self.accepted(key)) for row, key in zip(self._distances(generated), keys, strict=True)]
        return np.array(ranks, np.int64)

    def _distances(self, generated: np.ndarray) -> Iterator[np.ndarray]:
        """Squared distances `[N]` to the corpus, up to what is the same for the whole row, picture by picture."""
        for start in range(0, len(generated), CHUNK):
            products = _features(generated[start : start + CHUNK]) @ self._features.T
            yield from self._square_norms - 2 * products


def hits_at(ranks: np.ndarray, k: int) -> Estimate:
    """Share of `ranks` that are at most `k`, with its 95% interval."""
    return proportion(ranks <= k)


def _rank(distances: np.ndarray, accepted: np.ndarray) -> int:
    others = np.delete(distances, accepted)
    return 1 + int(np.count_nonzero(others <= distances[accepted].min()))


def _features(pictures: np.ndarray) -> np.ndarray:
    """`[N, H * W * 3]` float32, whose root mean square difference is the distance."""
    count, height, width, _ = pictures.shape
    rows, columns = (_blur_matrix(side, BLUR * height / 64) for side in (height, width))
    blurred = np.matmul(rows, (pictures.astype(np.float32) / 255).reshape(count, height, -1))
    blurred = np.matmul(columns, blurred.reshape(count, height, width, 3))
    blurred -= (1 - MEAN_WEIGHT) * blurred.mean(axis=(1, 2), keepdims=True)
    return blurred.reshape(count, -1)


def _blur_matrix(side: int, sigma: float) -> np.ndarray:
    """`[side, side]`: a Gaussian cut off at four standard deviations, edges repeated."""
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix = np.zeros((side, side), np.float32)
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        np.add.at(matrix, (np.arange(side), np.clip(np.arange(side) + offset, 0, side - 1)), weight)
    return matrix
