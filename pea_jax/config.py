"""The configuration of a run: every field with its default, and the presets that the files in `configs/` choose from.

A field may be overridden on the command line: `--config.optimizer.learning_rate=3e-4`.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from pea_jax.errors import PeaError


def base(language: str) -> ConfigDict:
    """The published recipe of PEA-Diffusion; a preset says which models and which data."""
    return ConfigDict(
        dict(
            language=language,  # field names of the data: caption_<language>, keywords_<language>
            base_model="",  # a diffusers folder or a Hub id: UNet, VAE, English text encoders, scheduler
            text_encoder=dict(id="", context_length=77, prefix="", hidden_state=-1),
            adapter=dict(hidden_dim=1024, num_layers=3),
            data=dict(
                train="",  # shard patterns, separated by spaces
                validation="",
                caption_variants=1,  # 1: the caption; more: it with some of the keywords
                buckets=((640, 640),),  # (width, height)
                cached=False,  # compute text states and VAE moments once, before the first step
                cache_dir="",  # where; empty: in the work directory
                num_threads=8,
            ),
            loss=dict(noise=1.0, output=1.0, features=0.1, conditioning=0.0, hybrid=True),
            condition_dropout=0.1,  # share of the samples whose tokens are those of the empty prompt, on both sides
            noise_offset=0.5,
            optimizer=dict(
                learning_rate=1e-5,
                end_learning_rate=5e-8,
                warmup_steps=100,
                power=1.0,
                b1=0.9,
                b2=0.999,
                weight_decay=0.0,
                clip_norm=1.0,  # 0: no clipping
            ),
            ema_decay=0.0,  # 0: no average of the adapter
            batch_size=240,  # over all devices
            num_steps=50_000,
            seed=0,
            dtype="bfloat16",  # of the frozen models
            mesh=dict(data=-1, fsdp=1),  # -1: what is there
            checkpoint=dict(every=1000, keep=3),
            log_every=50,
            picture_size=(1024, 1024),  # (width, height) of what samples, evaluation and generation draw
            sample=dict(every=1000, count=8, steps=25, guidance_scale=7.5, seed=0),
            evaluation=dict(steps=25, guidance_scale=7.5, seed=0, batch_size=64, seen=0),  # seen: 0 is all of them
        )
    )


def emoji(language: str) -> ConfigDict:
    """The embedded English model, encoder and corpus: minutes on two CPU cores, no download."""
    config = base(language)
    config.base_model = "assets/teacher"
    config.text_encoder = dict(id="assets/multilingual-e5-small", context_length=24, prefix="", hidden_state=-1)
    config.adapter.hidden_dim = 512
    config.data.train = "assets/emoji/emoji-train-{00000..00001}.tar"
    config.data.validation = "assets/emoji/emoji-val-00000.tar"
    config.data.caption_variants = 3
    config.data.buckets = ((64, 64),)
    config.data.cached = True
    config.picture_size = (64, 64)
    config.noise_offset = 0.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.end_learning_rate = 1e-5
    config.ema_decay = 0.99
    config.batch_size = 64
    config.num_steps = 600
    config.dtype = "float32"
    config.checkpoint.every = 200
    config.log_every = 10
    config.sample = dict(every=200, count=8, steps=12, guidance_scale=3.0, seed=0)
    config.evaluation = dict(steps=12, guidance_scale=3.0, seed=0, batch_size=64, seen=300)
    return config


def choose(preset: str, presets: dict[str, Callable[[], ConfigDict]]) -> ConfigDict:
    """The config of a preset.

    Raises:
      PeaError: there is no such preset; the ones that exist are named.
    """
    if preset not in presets:
        raise PeaError(f"preset {preset!r}: not known; choose from {', '.join(sorted(presets))}")
    return presets[preset]()
