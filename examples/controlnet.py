"""A ControlNet that follows the Canny edges of a picture. Needs `pip install opencv-python-headless`.

python examples/controlnet.py --adapter runs/ru/adapter --image house.jpg --prompt "пряничный домик" --out house.png
"""

import argparse

import cv2
import numpy as np
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline
from diffusers.utils import load_image
from drawing import NO_ENGLISH, device, dtype, flags, settings
from PIL import Image

from pea_jax.pytorch import PEAdapter

PARSER = flags(__doc__, base_model="stabilityai/stable-diffusion-xl-base-1.0", steps=30, guidance_scale=5.0)
PARSER.add_argument(
    "--controlnet", default="diffusers/controlnet-canny-sdxl-1.0", help="folder, or OWNER/NAME on the Hub"
)
PARSER.add_argument("--image", required=True, help="the picture whose edges are followed")
PARSER.add_argument("--scale", type=float, default=0.5, help="how closely")


def load(args: argparse.Namespace) -> StableDiffusionXLControlNetPipeline:
    controlnet = ControlNetModel.from_pretrained(args.controlnet, torch_dtype=dtype())
    pipe = StableDiffusionXLControlNetPipeline.from_pretrained(
        args.base_model, controlnet=controlnet, torch_dtype=dtype(), **NO_ENGLISH
    )
    return pipe.to(device())


def edges(path: str, width: int, height: int) -> Image.Image:
    picture = np.asarray(load_image(path).resize((width, height)))  # upright, as its EXIF says
    return Image.fromarray(cv2.Canny(picture, 100, 200)).convert("RGB")


def main(args: argparse.Namespace) -> None:
    pipe, adapter = load(args), PEAdapter.from_pretrained(args.adapter)
    conditioning = adapter.encode(pipe, args.prompt, args.negative_prompt)
    shown = dict(image=edges(args.image, args.width, args.height), controlnet_conditioning_scale=args.scale)
    pipe(**conditioning, **shown, **settings(args)).images[0].save(args.out)


if __name__ == "__main__":
    main(PARSER.parse_args())
