"""English models with a smaller and a larger UNet, beside the shipped one, on its autoencoder and text encoders.

    python -m tools.teacher.sizes --size small --workdir runs/teachers
    python -m tools.teacher.sizes --size large --workdir runs/teachers

As stage 3 of the shipped model's training, with other widths and in mixed precision, which takes a quarter of the time
off on a CPU; killed, it goes on from its last 250 steps. Makes `assets/teachers/SIZE`, a folder for `diffusers` as
`assets/teacher` is. For the study of base models.
"""

import argparse
import pathlib
import shutil

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tools.teacher import corpus, unet
from tools.teacher.assemble import let_all_read

SHIPPED = corpus.ROOT.parent / "teacher"
LARGEST_FILE = "40MB"
SIZES = {"small": (32, 64, 128), "large": (96, 192, 320)}  # the shipped one: unet.WIDTHS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, help="instead of assets/teachers/SIZE")
    parser.add_argument("--steps", type=int, default=unet.STEPS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    workdir, out = args.workdir / args.size, args.out or SHIPPED.with_name("teachers") / args.size
    if not (workdir / "text").exists():
        prepare(workdir)
    denoiser = unet.train(workdir, SIZES[args.size], args.steps, args.device, mixed_precision=True)
    assemble(denoiser, out, workdir / "unet" / "log.jsonl")
    print(f"{out}: {sum(p.numel() for p in denoiser.parameters()):,} parameters, {args.steps} steps")


def prepare(workdir: pathlib.Path) -> None:
    """The shipped autoencoder and text encoders, in the places and in the precision in which stage 3 finds them."""
    AutoencoderKL.from_pretrained(SHIPPED / "vae", torch_dtype=torch.float32).save_pretrained(workdir / "vae" / "model")
    text = workdir / "text.partial"
    shutil.rmtree(text, ignore_errors=True)
    for name, kind in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
        kind.from_pretrained(SHIPPED / name, dtype=torch.float32).save_pretrained(text / name)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(SHIPPED / name, text / name)
    text.rename(workdir / "text")


def assemble(denoiser: UNet2DConditionModel, folder: pathlib.Path, log: pathlib.Path) -> None:
    """The shipped model with another UNet, in half precision, and the log of its training."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(SHIPPED, partial, ignore=shutil.ignore_patterns("unet", "training", "README.md"))
    denoiser.half().save_pretrained(partial / "unet", max_shard_size=LARGEST_FILE)
    let_all_read(partial)
    (partial / "training").mkdir()
    shutil.copyfile(log, partial / "training" / "unet.jsonl")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


if __name__ == "__main__":
    main()
