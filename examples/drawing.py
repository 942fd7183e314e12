"""What the examples share: flags, device, dtype, and the noise."""

import argparse
from typing import Any

import torch

# An adapter stands in for the English encoders: they need not be loaded.
NO_ENGLISH = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))


def flags(doc: str, *, base_model: str, steps: int, guidance_scale: float, size: int = 1024) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default="runs/ru/adapter", help="folder, or OWNER/NAME on the Hugging Face Hub")
    parser.add_argument("--base_model", default=base_model, help="folder, or OWNER/NAME on the Hub")
    parser.add_argument("--prompt", required=True, help="in the adapter's language")
    parser.add_argument("--negative_prompt", default="", help="in the adapter's language")
    parser.add_argument("--out", required=True, help="PNG file to write")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--guidance_scale", type=float, default=guidance_scale)
    parser.add_argument("--width", type=int, default=size)
    parser.add_argument("--height", type=int, default=size)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype() -> torch.dtype:
    return torch.float16 if torch.cuda.is_available() else torch.float32


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a pipeline that are neither text nor pictures."""
    return dict(
        num_inference_steps=args.steps,
        guidance_scale=args.guidance_scale,
        height=args.height,
        width=args.width,
        generator=torch.Generator().manual_seed(args.seed),  # on the CPU: the same noise on every device
    )
