"""SDXL-Turbo: one to four steps, without guidance.

python examples/turbo.py --adapter runs/ru/adapter --prompt "матрёшка на подоконнике" --out doll.png
"""

import argparse

from diffusers import StableDiffusionXLPipeline
from drawing import NO_ENGLISH, device, dtype, flags, settings

from pea_jax.pytorch import PEAdapter

PARSER = flags(__doc__, base_model="stabilityai/sdxl-turbo", steps=1, guidance_scale=0.0, size=512)


def load(args: argparse.Namespace) -> StableDiffusionXLPipeline:
    # Its scheduler, Euler ancestral with trailing timesteps, comes with it.
    pipe = StableDiffusionXLPipeline.from_pretrained(args.base_model, torch_dtype=dtype(), **NO_ENGLISH)
    return pipe.to(device())


def main(args: argparse.Namespace) -> None:
    pipe, adapter = load(args), PEAdapter.from_pretrained(args.adapter)
    conditioning = adapter.encode(pipe, args.prompt, guidance=False)
    pipe(**conditioning, **settings(args)).images[0].save(args.out)


if __name__ == "__main__":
    main(PARSER.parse_args())
