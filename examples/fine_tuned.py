"""A fine-tune of the base model, with the adapter that was trained for the base model.

python examples/fine_tuned.py --adapter runs/ru/adapter --prompt "старый маяк на закате" --out lighthouse.png
python examples/fine_tuned.py --base_model tuned.safetensors --prompt "старый маяк на закате" --out lighthouse.png
"""

import argparse

from diffusers import StableDiffusionXLPipeline
from drawing import NO_ENGLISH, device, dtype, flags, settings

from pea_jax.pytorch import PEAdapter

PARSER = flags(__doc__, base_model="RunDiffusion/Juggernaut-XL-v9", steps=30, guidance_scale=5.0)
PARSER.add_argument(
    "--config",
    default="stabilityai/stable-diffusion-xl-base-1.0",
    help="of a checkpoint in one file: what it is tuned from",
)


def load(args: argparse.Namespace) -> StableDiffusionXLPipeline:
    if args.base_model.endswith(".safetensors"):
        pipe = StableDiffusionXLPipeline.from_single_file(
            args.base_model, config=args.config, torch_dtype=dtype(), **NO_ENGLISH
        )
    else:
        pipe = StableDiffusionXLPipeline.from_pretrained(args.base_model, torch_dtype=dtype(), **NO_ENGLISH)
    return pipe.to(device())


def main(args: argparse.Namespace) -> None:
    pipe, adapter = load(args), PEAdapter.from_pretrained(args.adapter)
    conditioning = adapter.encode(pipe, args.prompt, args.negative_prompt)
    pipe(**conditioning, **settings(args)).images[0].save(args.out)


if __name__ == "__main__":
    main(PARSER.parse_args())
