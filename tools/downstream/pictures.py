"""What the ControlNet and the LoRA are taught: emoji moved about with their edges, emoji in another style."""

import cv2
import numpy as np
import torch

COBALT, WHITE = np.array([16, 42, 140]), np.array([255, 255, 255])
CANNY = 100, 200  # the thresholds that SDXL's published ControlNet was trained with


def edges(picture: np.ndarray) -> np.ndarray:
    """Canny's edges `[H, W, 3]`, white on black, of a picture `[H, W, 3]` uint8."""
    return np.repeat(cv2.Canny(picture, *CANNY)[..., None], 3, axis=-1)


def moved(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored or not, turned by up to 40 degrees, made smaller and shifted, on white."""
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    size = picture.shape[0]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), rng.uniform(-40, 40), rng.uniform(0.6, 1.0))
    matrix[:, 2] += rng.uniform(-8, 8, 2)
    white = (255, 255, 255)
    return cv2.warpAffine(np.ascontiguousarray(picture), matrix, (size, size), flags=cv2.INTER_AREA, borderValue=white)


def gzhel(picture: np.ndarray) -> np.ndarray:
    """The same in cobalt blue on white, as the porcelain of Gzhel is painted."""
    darkness = 1 - cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] / 255
    return np.round(WHITE + np.minimum(1.3 * darkness, 1) * (COBALT - WHITE)).astype(np.uint8)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """`[N, H, W, 3]` uint8 to `[N, 3, H, W]` in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
