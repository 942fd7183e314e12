"""Stage 2: a CLIP tokenizer and two CLIP text encoders whose space follows a pretrained sentence encoder.

Text encoders trained on 1,606 names alone would place "cat" no nearer to "kitten" than to "hammer". Real CLIP encoders
know better, because they have read the web. Ours learn it from the English side of multilingual-e5-small: the
projection of encoder 2 and (through a head that is thrown away) the mean of the penultimate states are regressed on its
sentence vectors.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tools.teacher import corpus, training

STEPS, BATCH, LR, SEED = 1500, 256, 1e-3, 0
VOCABULARY, CONTEXT, POOLED = 3072, 24, 256
ENCODER = corpus.ROOT.parent / "multilingual-e5-small"


def train_tokenizer(texts: list[str], folder: pathlib.Path, pad_token: str) -> CLIPTokenizer:
    """A byte-pair vocabulary in CLIP's own layout: bytes, bytes at a word's end, merges, two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # in the order of the code points, as in CLIP
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    size = VOCABULARY - 256 - 2 - len(alphabet)
    trainer = trainers.BpeTrainer(
        vocab_size=size + len(alphabet) * 2, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator((text.lower() for text in texts), trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]][: VOCABULARY - 514]
    tokens = alphabet + [token + "</w>" for token in alphabet] + ["".join(pair) for pair in merges]
    tokens = list(dict.fromkeys(tokens)) + ["<|startoftext|>", "<|endoftext|>"]
    clip = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, pad_token=pad_token, model_max_length=CONTEXT
    )
    clip.save_pretrained(folder)
    return clip


def build(vocabulary: int) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    # eos_token_id 2 selects the rule of SDXL's own encoders: pool where the id is largest.
    shared = dict(
        vocab_size=vocabulary, max_position_embeddings=CONTEXT, bos_token_id=0, eos_token_id=2, pad_token_id=1
    )
    first = CLIPTextConfig(
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=3,
        hidden_act="quick_gelu",
        projection_dim=96,
        **shared,
    )
    second = CLIPTextConfig(
        hidden_size=160,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=5,
        hidden_act="gelu",
        projection_dim=POOLED,
        **shared,
    )
    return CLIPTextModel(first), CLIPTextModelWithProjection(second)


def sentence_vectors(texts: list[str]) -> np.ndarray:
    """Mean-pooled, centred, unit-length vectors `[N, 384]` of the multilingual encoder."""
    from pea_jax.text.encoders import load_text_encoder

    encoder = load_text_encoder(ENCODER, context_length=64)
    pooled = []
    for start in range(0, len(texts), 256):
        states, mask = encoder.encode(texts[start : start + 256])
        weights = np.asarray(mask, np.float32)[..., None]
        pooled.append((np.asarray(states) * weights).sum(1) / weights.sum(1))
    return _unit(np.concatenate(pooled) - np.concatenate(pooled).mean(0))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def targets(emojis: list[corpus.Emoji], cache: pathlib.Path) -> tuple[list[str], torch.Tensor]:
    """Texts and what each should mean `[N, 256]`: half itself, half the fullest description of its picture."""
    captions = [text for emoji in emojis for text in corpus.captions(emoji)]
    full = [corpus.full_caption(emoji) for emoji in emojis]
    words = sorted({word for emoji in emojis for word in emoji.keywords})
    texts = captions + full + words
    if not cache.exists():
        np.save(cache, sentence_vectors(texts))
    own = np.load(cache)
    concept = own.copy()
    concept[: len(captions)] = np.repeat(own[len(captions) : len(captions) + len(full)], 8, axis=0)
    meaning = _unit(own + concept)
    basis = np.linalg.svd(meaning - meaning.mean(0), full_matrices=False)[2][:POOLED]
    return texts, torch.from_numpy(_unit(meaning @ basis.T) * POOLED**0.5)


def encode(encoders, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SDXL's conditioning: penultimate states of both encoders side by side, projection of the second."""
    first, second = (encoder(tokens, output_hidden_states=True) for encoder, tokens in zip(encoders, ids, strict=True))
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds


def tokenize(tokenizers, texts: list[str]) -> torch.Tensor:
    """Ids `[2, N, L]`, one row for each tokenizer."""
    rule = dict(padding="max_length", truncation=True, return_tensors="pt")
    return torch.stack([tokenizer(texts, **rule).input_ids for tokenizer in tokenizers])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    folder = args.workdir / "text"
    folder.mkdir(parents=True, exist_ok=True)
    texts, meaning = targets(corpus.load(flags=False), folder / "sentence_vectors.npy")
    tokenizers = [
        train_tokenizer(texts, folder / name, pad)
        for name, pad in [("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")]
    ]
    ids = tokenize(tokenizers, texts)
    torch.manual_seed(SEED)
    encoders = build(len(tokenizers[0]))
    head = torch.nn.Linear(256, POOLED)
    modules = dict(text_encoder=encoders[0], text_encoder_2=encoders[1], head=head)
    run = training.Run(folder, modules, lr=LR, steps=args.steps, seed=SEED)
    for step in run.steps():
        rows = torch.randint(len(texts), (BATCH,))
        tokens, pooled = encode(encoders, ids[:, rows])
        error = (pooled - meaning[rows]).square().mean()
        tokens_error = (head(tokens.mean(1)) - meaning[rows]).square().mean()
        run.update(step, error + 0.5 * tokens_error, pooled=error.detach(), tokens=tokens_error.detach())
    for name, encoder in list(modules.items())[:2]:
        encoder.save_pretrained(folder / name)


if __name__ == "__main__":
    main()
