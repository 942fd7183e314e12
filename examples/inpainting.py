"""Paints what a prompt says where a mask is white, with a UNet made for it (9 input channels).

python examples/inpainting.py --adapter runs/ru/adapter --image room.png --mask mask.png --prompt "самовар" --out a.png
"""

import argparse

from diffusers import StableDiffusionXLInpaintPipeline
from diffusers.utils import load_image
from drawing import NO_ENGLISH, device, dtype, flags, settings

from pea_jax.pytorch import PEAdapter

PARSER = flags(__doc__, base_model="diffusers/stable-diffusion-xl-1.0-inpainting-0.1", steps=30, guidance_scale=7.5)
PARSER.add_argument("--image", required=True, help="the picture")
PARSER.add_argument("--mask", required=True, help="a picture of the same size, white where to paint")
PARSER.add_argument("--strength", type=float, default=0.99, help="1: nothing of what was there shines through")


def load(args: argparse.Namespace) -> StableDiffusionXLInpaintPipeline:
    pipe = StableDiffusionXLInpaintPipeline.from_pretrained(args.base_model, torch_dtype=dtype(), **NO_ENGLISH)
    return pipe.to(device())


def main(args: argparse.Namespace) -> None:
    pipe, adapter = load(args), PEAdapter.from_pretrained(args.adapter)
    conditioning = adapter.encode(pipe, args.prompt, args.negative_prompt)
    size = args.width, args.height
    image, mask = load_image(args.image), load_image(args.mask).convert("L")  # upright, as their EXIF says
    shown = dict(image=image.resize(size), mask_image=mask.resize(size))
    pipe(**conditioning, **shown, strength=args.strength, **settings(args)).images[0].save(args.out)


if __name__ == "__main__":
    main(PARSER.parse_args())
