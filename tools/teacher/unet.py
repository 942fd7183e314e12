"""Stage 3: an SDXL-class UNet on the latents and text states of the first two stages.

Both are computed once and kept, so that a step costs the UNet alone. A little noise on the text states keeps the UNet's
answer smooth around every prompt it was taught, as a larger model's is by its millions of different captions.

Which of the 1,606 pictures a sample becomes is settled while it is still almost pure noise: 1,024 latent values tell
the pictures apart from a signal-to-noise ratio of 0.02 on. So the timesteps are drawn towards the noisy end, and the
loss is weighted as that of a v-prediction (Salimans and Ho 2022), up to a limit: the plain noise loss would give the
reading of the prompt a weight near zero.
"""

import argparse
import copy
import pathlib

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tools.teacher import corpus, text, training

STEPS, BATCH, LR, SEED, EMA = 9_000, 64, 8e-4, 0, 0.999
WIDTHS = (64, 128, 224)
SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
NAME_SHARE = 0.5  # of the prompts are the bare name
NO_TEXT, NO_TOKENS, NO_POOLED = 0.1, 0.1, 0.1
STATE_NOISE = 0.5  # the most, relative to the standard deviation of the states
MAX_WEIGHT = 30.0  # of the loss at one timestep; reached at timestep 815


def build(widths: tuple[int, ...] = WIDTHS) -> UNet2DConditionModel:
    """With attention heads of 32 channels each."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=16,
        out_channels=16,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        attention_head_dim=tuple(width // 32 for width in widths),
        cross_attention_dim=256,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=text.POOLED + 6 * 32,
        use_linear_projection=True,
        norm_num_groups=16,
    )


@torch.no_grad()
def latents(vae: AutoencoderKL, emojis: list[corpus.Emoji]) -> tuple[torch.Tensor, float]:
    """Posterior means `[N, 16, 8, 8]` scaled to unit variance, and the factor that did it."""
    means = torch.cat([vae.encode(x).latent_dist.mean for x in corpus.to_tensor(emojis).split(128)])
    factor = round(1 / means.std().item(), 4)
    return means * factor, factor


@torch.no_grad()
def text_states(folder: pathlib.Path, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt embeddings `[N, L, 256]` and pooled embeddings `[N, 256]`."""
    tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")]
    encoders = (
        CLIPTextModel.from_pretrained(folder / "text_encoder").eval(),
        CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2").eval(),
    )
    ids = text.tokenize(tokenizers, captions)
    parts = [text.encode(encoders, part) for part in ids.split(512, dim=1)]
    return torch.cat([tokens for tokens, _ in parts]), torch.cat([pooled for _, pooled in parts])


class Conditions:
    """Draws the text states of pictures, with the drops and the noise of training."""

    def __init__(self, folder: pathlib.Path, emojis: list[corpus.Emoji]):
        captions = [caption for emoji in emojis for caption in corpus.captions(emoji)]
        self.variants = len(captions) // len(emojis)
        tokens, pooled = text_states(folder, [*captions, ""])
        self.tokens, self.null_tokens = tokens[:-1], tokens[-1]
        self.pooled, self.null_pooled = pooled[:-1], pooled[-1]
        self.spread = self.tokens.std(), self.pooled.std()

    def draw(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n = len(rows)
        variant = torch.where(torch.rand(n) < NAME_SHARE, 0, torch.randint(1, self.variants, (n,)))
        index = rows * self.variants + variant
        level = STATE_NOISE * torch.rand(n).square()
        tokens, pooled = self.tokens[index], self.pooled[index]
        tokens = tokens + level[:, None, None] * self.spread[0] * torch.randn_like(tokens)
        pooled = pooled + level[:, None] * self.spread[1] * torch.randn_like(pooled)
        chance = torch.rand(n)
        no_tokens = chance < NO_TEXT + NO_TOKENS
        no_pooled = (chance < NO_TEXT) | (chance > 1 - NO_POOLED)
        return (
            torch.where(no_tokens[:, None, None], self.null_tokens, tokens),
            torch.where(no_pooled[:, None], self.null_pooled, pooled),
        )


def draw_timesteps(n: int) -> torch.Tensor:
    """Timesteps `[N]`: half of them above 750, a third above 900."""
    return (1000 * (1 - torch.rand(n).square())).long().clamp(max=999)


def train(
    workdir: pathlib.Path, widths: tuple[int, ...], steps: int, device: str, mixed_precision: bool = False
) -> UNet2DConditionModel:
    """Train, or go on training, on the autoencoder and text encoders of `workdir`; the average of the UNets.

    In mixed precision the UNet computes in bfloat16; its weights, the loss and the optimizer stay in float32.
    """
    torch.manual_seed(SEED)
    emojis = corpus.load(flags=False)
    pictures, _ = latents(AutoencoderKL.from_pretrained(workdir / "vae" / "model"), emojis)
    conditions = Conditions(workdir / "text", emojis)
    unet = build(widths).to(device)
    average = copy.deepcopy(unet).requires_grad_(False)
    scheduler = DDPMScheduler(**SCHEDULE, clip_sample=False)
    weights = (1 / scheduler.alphas_cumprod).clamp(max=MAX_WEIGHT).to(device)
    time_ids = torch.tensor([64, 64, 0, 0, 64, 64], dtype=torch.float32, device=device).expand(BATCH, 6)
    run = training.Run(workdir / "unet", dict(unet=unet, average=average), lr=LR, steps=steps, seed=SEED)
    for step in run.steps():
        rows = torch.randint(len(pictures), (BATCH,))
        noise, timesteps = torch.randn(BATCH, *pictures.shape[1:]), draw_timesteps(BATCH)
        sample = scheduler.add_noise(pictures[rows], noise, timesteps)
        arrays = [x.to(device) for x in (sample, timesteps, noise, *conditions.draw(rows))]
        sample, timesteps, noise, tokens, pooled = arrays
        added = dict(text_embeds=pooled, time_ids=time_ids)
        with torch.autocast(device, torch.bfloat16, enabled=mixed_precision):
            prediction = unet(sample, timesteps, encoder_hidden_states=tokens, added_cond_kwargs=added).sample
        error = (prediction - noise).square().mean((1, 2, 3))
        run.update(step, (weights[timesteps] * error).mean(), noise=error.mean().detach())
        torch._foreach_lerp_(
            list(average.parameters()), list(unet.parameters()), 1 - min(EMA, (step + 1) / (step + 10))
        )
    return average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    train(args.workdir, WIDTHS, args.steps, args.device).save_pretrained(args.workdir / "unet" / "model")


if __name__ == "__main__":
    main()
