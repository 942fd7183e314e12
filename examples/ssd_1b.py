"""SSD-1B, a distilled Stable Diffusion XL of half the size: it takes the same embeddings, so the same adapter.

python examples/ssd_1b.py --adapter runs/ru/adapter --prompt "снежный барс в горах" --out leopard.png
"""

import argparse

from diffusers import StableDiffusionXLPipeline
from drawing import NO_ENGLISH, device, dtype, flags, settings

from pea_jax.pytorch import PEAdapter

PARSER = flags(__doc__, base_model="segmind/SSD-1B", steps=30, guidance_scale=9.0)


def load(args: argparse.Namespace) -> StableDiffusionXLPipeline:
    pipe = StableDiffusionXLPipeline.from_pretrained(args.base_model, torch_dtype=dtype(), **NO_ENGLISH)
    return pipe.to(device())


def main(args: argparse.Namespace) -> None:
    pipe, adapter = load(args), PEAdapter.from_pretrained(args.adapter)
    conditioning = adapter.encode(pipe, args.prompt, args.negative_prompt)
    pipe(**conditioning, **settings(args)).images[0].save(args.out)


if __name__ == "__main__":
    main(PARSER.parse_args())
