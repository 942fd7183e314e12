"""Stage 4: the trained parts as one diffusers folder in half precision, for `StableDiffusionXLPipeline`."""

import argparse
import pathlib
import shutil

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionXLPipeline
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tools.teacher import corpus, unet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=corpus.ROOT.parent / "teacher")
    args = parser.parse_args()
    text, vae = args.workdir / "text", AutoencoderKL.from_pretrained(args.workdir / "vae" / "model")
    _, factor = unet.latents(vae, corpus.load(flags=False))
    vae.register_to_config(scaling_factor=factor, _name_or_path="")
    denoiser = unet.build()
    saved = torch.load(args.workdir / "unet" / "state.pt", weights_only=True)
    denoiser.load_state_dict(saved["modules"]["average"])
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel.from_pretrained(text / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(text / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(text / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(text / "tokenizer_2"),
        unet=denoiser,
        scheduler=DPMSolverMultistepScheduler(**unet.SCHEDULE, timestep_spacing="trailing"),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    shutil.rmtree(args.out, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(args.out)
    (args.out / "training").mkdir()
    for stage in ("vae", "text", "unet"):
        shutil.copyfile(args.workdir / stage / "log.jsonl", args.out / "training" / f"{stage}.jsonl")
    let_all_read(args.out)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: UNet after {saved['step']} steps, {size / 1e6:.1f} MB")


def let_all_read(folder: pathlib.Path) -> None:
    """Of the weights in a folder: safetensors writes files that only their owner may read."""
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
