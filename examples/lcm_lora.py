"""LCM-LoRA: four steps in place of thirty, on the base model and its fine-tunes. Needs `pip install peft`.

python examples/lcm_lora.py --adapter runs/ru/adapter --prompt "тройка в зимнем лесу" --out troika.png
"""

import argparse

from diffusers import LCMScheduler, StableDiffusionXLPipeline
from drawing import NO_ENGLISH, device, dtype, flags, settings

from pea_jax.pytorch import PEAdapter

PARSER = flags(__doc__, base_model="stabilityai/stable-diffusion-xl-base-1.0", steps=4, guidance_scale=1.0)
PARSER.add_argument("--lora", default="latent-consistency/lcm-lora-sdxl", help="folder, file, or OWNER/NAME on the Hub")


def load(args: argparse.Namespace) -> StableDiffusionXLPipeline:
    pipe = StableDiffusionXLPipeline.from_pretrained(args.base_model, torch_dtype=dtype(), **NO_ENGLISH)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    reading = dict(unet_config=pipe.unet.config, return_lora_metadata=True)
    layers, alphas, metadata = pipe.lora_state_dict(args.lora, **reading)  # newer files state alpha in the metadata
    pipe.load_lora_into_unet(layers, alphas, pipe.unet, metadata=metadata)
    pipe.fuse_lora(components=["unet"])
    return pipe.to(device())


def main(args: argparse.Namespace) -> None:
    pipe, adapter = load(args), PEAdapter.from_pretrained(args.adapter)
    guided = args.guidance_scale > 1  # up to 2 is usual; without guidance a step takes half the time
    conditioning = adapter.encode(pipe, args.prompt, args.negative_prompt, guidance=guided)
    pipe(**conditioning, **settings(args)).images[0].save(args.out)


if __name__ == "__main__":
    main(PARSER.parse_args())
