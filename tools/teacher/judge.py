"""Stage 5: does the teacher draw what is named? Retrieval among all 1,606 pictures, and a sheet to look at.

    python -m tools.teacher.judge --out assets/teacher/training/judgement.json --sheet sheet.png

The nearest picture of the corpus must be the one named, or one that differs only by the gender of a person; how near
pictures are is in `pea_jax/metrics/retrieval.py`. The decoded originals are judged beside the drawn pictures: they are
the most that the autoencoder allows.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
from flax import nnx
from PIL import Image

from pea_jax import command, mesh
from pea_jax.data import Concept, read_split
from pea_jax.distill.judging import retrieval_among
from pea_jax.metrics.retrieval import hits_at
from pea_jax.sampling.pipeline import Sampling, TextToImage
from pea_jax.text.conditioner import StableDiffusionXLConditioner
from pea_jax.weights import load_vae
from tools.teacher import corpus


def main() -> None:
    args = _arguments()
    command.prepare_devices()
    concepts = read_split(f"{corpus.ROOT}/emoji-train-{{00000..00001}}.tar {corpus.ROOT}/emoji-val-00000.tar", ("en",))
    retrieval = retrieval_among(concepts)
    asked = concepts[:: args.every]
    drawn = _draw(args, asked)
    result = dict(steps=args.steps, guidance_scale=args.guidance_scale, seed=args.seed, concepts=len(asked))
    for name, pictures in (("drawn", drawn), ("decoded originals", _decoded(args.model, asked))):
        ranks = retrieval.rank(pictures, [concept.key for concept in asked])
        result[name] = {f"retrieval_at_{k}": hits_at(ranks, k)._asdict() for k in (1, 5)}
        print(name, *(f"R@{k} {100 * hits_at(ranks, k).value:.1f}%" for k in (1, 5)))
        if name == "drawn":
            missed = [(concept.names["en"], int(rank)) for concept, rank in zip(asked, ranks, strict=True) if rank > 1]
            result["missed"] = dict(sorted(missed, key=lambda entry: -entry[1]))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    if args.sheet:
        _sheet(drawn).save(args.sheet)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=corpus.ROOT.parent / "teacher")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance_scale", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="judge every n-th name only")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--sheet", type=pathlib.Path, help="PNG of 100 of the pictures, in the order of the corpus")
    return parser.parse_args()


def _draw(args: argparse.Namespace, concepts: list[Concept]) -> np.ndarray:
    devices = mesh.make_mesh()
    pipeline = TextToImage.from_pretrained(args.model, mesh=devices)
    conditioner = StableDiffusionXLConditioner.from_pretrained(args.model, mesh=devices)
    prompts, negative = conditioner.encode_guided([concept.names["en"] for concept in concepts])
    sampling = Sampling(steps=args.steps, guidance_scale=args.guidance_scale, seed=args.seed)
    return pipeline.generate(prompts, negative, sampling, height=64, width=64)


def _decoded(model: pathlib.Path, concepts: list[Concept]) -> np.ndarray:
    """The originals after the autoencoder, `[N, 64, 64, 3]` uint8."""
    graphdef, params = nnx.split(load_vae(model))

    @jax.jit
    def through(params, pixels):
        vae = nnx.merge(graphdef, params)
        return vae.decode(vae.encode(pixels)[..., : vae.config.latent_channels])

    pixels = np.stack([concept.pixels for concept in concepts]).astype(np.float32) / 127.5 - 1
    decoded = np.concatenate([through(params, pixels[start : start + 100]) for start in range(0, len(pixels), 100)])
    return np.round(np.clip(decoded / 2 + 0.5, 0, 1) * 255).astype(np.uint8)


def _sheet(pictures: np.ndarray) -> Image.Image:
    """Ten rows of ten, evenly spread over all of them."""
    chosen = pictures[np.linspace(0, len(pictures) - 1, 100).astype(int)]
    rows = chosen.reshape(10, 10, *chosen.shape[1:])
    return Image.fromarray(rows.transpose(0, 2, 1, 3, 4).reshape(10 * chosen.shape[1], -1, 3))


if __name__ == "__main__":
    main()
