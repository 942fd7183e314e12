"""A LoRA of the base model, made for English prompts, under prompts of the adapter's language.

Needs `pip install peft`.

python examples/lora.py --adapter runs/ru/adapter --prompt "рыжий кот, пиксельная графика" --out cat.png
"""

import argparse

from diffusers import StableDiffusionXLPipeline
from drawing import NO_ENGLISH, device, dtype, flags, settings

from pea_jax.pytorch import PEAdapter

PARSER = flags(__doc__, base_model="stabilityai/stable-diffusion-xl-base-1.0", steps=30, guidance_scale=5.0)
PARSER.add_argument("--lora", default="nerijs/pixel-art-xl", help="folder, file, or OWNER/NAME on the Hub")
PARSER.add_argument("--weight_name", help="of the file in a folder or on the Hub, where there are several")
PARSER.add_argument("--scale", type=float, default=1.0, help="how much of the LoRA")


def load(args: argparse.Namespace) -> StableDiffusionXLPipeline:
    pipe = StableDiffusionXLPipeline.from_pretrained(args.base_model, torch_dtype=dtype(), **NO_ENGLISH)
    # The UNet's layers alone: those of the English encoders have nothing to act on.
    # With the config, names that count the UNet's blocks through (input_blocks.4, as kohya writes them) can be read.
    reading = dict(weight_name=args.weight_name, unet_config=pipe.unet.config, return_lora_metadata=True)
    layers, alphas, metadata = pipe.lora_state_dict(args.lora, **reading)  # newer files state alpha in the metadata
    pipe.load_lora_into_unet(layers, alphas, pipe.unet, metadata=metadata)
    pipe.fuse_lora(components=["unet"], lora_scale=args.scale)
    return pipe.to(device())


def main(args: argparse.Namespace) -> None:
    pipe, adapter = load(args), PEAdapter.from_pretrained(args.adapter)
    conditioning = adapter.encode(pipe, args.prompt, args.negative_prompt)
    pipe(**conditioning, **settings(args)).images[0].save(args.out)


if __name__ == "__main__":
    main(PARSER.parse_args())
