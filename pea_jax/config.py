"""The configuration of a run: every field with its default, and the presets that the files in `configs/` choose from.

A field may be overridden on the command line: `--config.optimizer.learning_rate=3e-4`.
"""

import difflib
import functools
import json
import math
import numbers
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from pea_jax.data.storage import is_remote
from pea_jax.errors import PeaError
from pea_jax.models.calls import POLICIES

DTYPES = ("float32", "bfloat16")

# (width, height), about 0.4 megapixels each; a picture goes to the nearest aspect.
SDXL_BUCKETS = (
    (448, 896), (448, 832), (512, 768), (576, 704), (640, 640), (704, 576), (768, 512), (832, 448), (896, 448),
)  # fmt: skip

# How often the published training drew each.
SDXL_BUCKET_WEIGHTS = (0.0049, 0.0068, 0.0807, 0.0723, 0.2208, 0.2068, 0.2939, 0.0924, 0.0215)

# What fields must be at least; each is read only later than a run starts, or would go unnoticed.
LEAST = {
    1: (
        "batch_size", "num_microbatches", "num_steps", "log_every", "checkpoint.every", "checkpoint.keep",
        "text_encoder.context_length", "data.caption_variants", "data.num_threads", "data.max_pixels",
        "adapter.hidden_dim", "adapter.num_layers", "sample.every", "sample.steps", "sample.count",
        "evaluation.steps", "data.timeout", "max_timestep",
    ),
    0: (
        "seed", "linear_start", "loss.noise", "loss.output", "loss.features", "loss.conditioning", "loss.contrast",
        "noise_offset", "min_timestep", "condition_dropout", "ema_decay", "data.max_bad_rate",
        "optimizer.learning_rate", "optimizer.end_learning_rate", "optimizer.warmup_steps", "optimizer.b1",
        "optimizer.b2", "optimizer.weight_decay", "optimizer.clip_norm", "sample.seed",
        "evaluation.seen", "evaluation.seed", "evaluation.batch_size",
    ),
}  # fmt: skip
BELOW_1 = ("ema_decay", "optimizer.b1", "optimizer.b2")  # 1: an average that never takes anything in
# What they may be at most: shares; a schedule of 1000 training steps has 999 to draw in; seeds of 32 bits, of which the
# loader takes one more for each bucket.
MOST = {
    1: ("condition_dropout", "data.max_bad_rate"),
    999: ("sample.steps", "evaluation.steps"),
    2**31 - 1: ("seed",),
    2**32 - 1: ("sample.seed", "evaluation.seed"),
}
CHOICES = {"dtype": DTYPES, "vae_dtype": ("", *DTYPES), "remat": POLICIES}


def base(language: str) -> ConfigDict:
    """The published recipe of PEA-Diffusion on Stable Diffusion XL; a preset says which models and which data."""
    return ConfigDict(
        dict(
            language=language,  # of the captions
            base_model="",  # a diffusers folder or a Hub id: UNet, VAE, English text encoders, scheduler
            base_model_config="",  # for a base_model in one file: the folder or Hub id it was tuned from
            text_encoder=_text_encoder("", 77),
            adapter=dict(hidden_dim=1024, num_layers=3),
            linear_start=0,  # samples whose captions the adapter starts from, as a linear map; 0: as PyTorch starts
            data=dict(
                train="",  # shards, folders, tables of texts; several with spaces between
                english="",  # more of them, of which nothing but the English captions is used, for the student too
                validation="",
                caption_variants=1,  # 1: the caption; more: it with some of the keywords
                more_languages="",  # one more caption in each, "en uk": English is English for the student too
                # Fields of a sample's record, the first with text is taken; {language} stands for the language.
                caption_fields=dict(
                    native="",  # of the language's own culture, learnt from the picture; several with spaces between
                    translated="caption_{language}",  # of a pair with English, learnt from the teacher
                    english="caption_en",
                    keywords="keywords_{language}",
                ),
                missing_caption="english",  # in the language: english (for the student too), error
                cleaning="plain",  # of captions: none, plain, chinese
                # Samples that are left out, by record and image header; the scores are asked of pairs with English.
                filters=dict(
                    min_pixels=640 * 640,  # 0: any
                    min_side=0,  # 0: any
                    max_aspect_error=2.0,  # to the nearest bucket's width / height, less than that; 0: any
                    aesthetic_field="aesthetic_score",
                    min_aesthetic=6.0,  # 0: any
                    watermark_field="watermark",
                    max_watermark=0.5,  # 1: any
                    unscored="keep",  # samples without a score: keep, drop
                ),
                buckets=SDXL_BUCKETS,  # (width, height)
                bucket_weights=(),  # how often each comes, e.g. SDXL_BUCKET_WEIGHTS; (): as often as the data have it
                time_ids="sdxl",  # order of the sizes that the UNet is told: sdxl (height first), published
                cached=False,  # compute text states and VAE moments once, before the first step
                # Where that lies, empty: in the work directory; and what is kept of remote data and of folders that
                # cannot be written (indices, the survey), empty: in ~/.cache/pea_jax.
                cache_dir="",
                num_threads=8,
                timeout=600.0,  # seconds for one batch, after which reading is taken to hang
                max_bad_rate=0.01,  # share of samples that cannot be read or decoded; the run stops above it
                max_pixels=100_000_000,  # of one picture; a larger one is bad, and not decoded
            ),
            loss=dict(noise=1.0, output=1.0, features=0.1, conditioning=0.0, contrast=0.0, hybrid=True),
            condition_dropout=0.1,  # share of the samples whose tokens are those of the empty prompt, on both sides
            noise_offset=0.5,
            min_timestep=0,  # the pictures are noised to timesteps from here, 0 hardly at all,
            max_timestep=1000,  # to below here, or to the last of the base model's schedule
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
            num_microbatches=1,  # parts of a batch, computed one after the other to save memory (gradient accumulation)
            num_steps=50_000,
            seed=0,
            dtype="bfloat16",  # of the frozen models
            vae_dtype="",  # of the autoencoder; empty: the same
            # The UNet's kernels in 8 bits: int8, float8_e4m3fn, "" for none; activations: what linear layers take, too.
            quantisation=dict(weights="", activations=False),
            mesh=dict(data=-1, fsdp=1),  # -1: what is there
            remat="none",  # what the student's backward pass computes again to save memory: none, block (layers), full
            checkpoint=dict(every=1000, keep=3),
            log_every=50,
            picture_size=(1024, 1024),  # (width, height) of what samples, evaluation and generation draw
            sample=dict(every=1000, count=8, steps=25, guidance_scale=7.5, seed=0),
            # batch_size: pictures at once, 0 by their size; seen: concepts of the training set, 0 all of them
            evaluation=dict(steps=25, guidance_scale=7.5, seed=0, batch_size=0, seen=0),
        )
    )


def sdxl(language: str, text_encoder: str, *, context_length: int = 77, hidden_dim: int = 1024) -> ConfigDict:
    """The published recipe on Stable Diffusion XL: 50,000 steps of 240 pictures.

    Args:
      language: of the captions, `caption_<language>` in the data.
      text_encoder: a folder or Hub id; several, `"A + B"`, are put side by side.
      context_length: its number of tokens.
      hidden_dim: width of the adapter.
    """
    config = base(language)
    config.base_model = "stabilityai/stable-diffusion-xl-base-1.0"
    config.text_encoder = _text_encoder(text_encoder, context_length)
    config.adapter.hidden_dim = hidden_dim
    config.data.cleaning = "chinese" if language == "zh" else "plain"
    return config


def sd15(language: str, text_encoder: str, *, context_length: int = 77, hidden_dim: int = 2048) -> ConfigDict:
    """The published recipe on Stable Diffusion 1.5: pictures of 512x512, batches of 320; arguments as for `sdxl`."""
    config = sdxl(language, text_encoder, context_length=context_length, hidden_dim=hidden_dim)
    config.base_model = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    config.data.buckets = ((512, 512),)
    config.data.filters.update(min_pixels=0, max_aspect_error=0.0)  # published for SDXL alone
    config.batch_size = 320
    config.num_steps = 42_000
    config.picture_size = (512, 512)
    return config


def emoji(language: str) -> ConfigDict:
    """The embedded English model, encoder and corpus: minutes on two CPU cores, no download."""
    config = base(language)
    config.base_model = "assets/teacher"
    config.text_encoder = _text_encoder("assets/multilingual-e5-small", 24)
    config.adapter.hidden_dim = 512
    config.data.train = "assets/emoji/emoji-train-{00000..00001}.tar"
    # Held out: the adapter meets these in English, as the model did, and is never told what they are called otherwise.
    config.data.english = config.data.validation = "assets/emoji/emoji-val-00000.tar"
    config.data.caption_variants = 3
    config.data.more_languages = "en"
    config.linear_start = 64
    config.data.missing_caption = "error"
    config.data.cleaning = "none"
    config.data.filters.update(min_pixels=0, max_aspect_error=0.0, min_aesthetic=0.0, max_watermark=1.0)
    config.data.buckets = ((64, 64),)
    config.data.cached = True
    config.picture_size = (64, 64)
    config.noise_offset = 0.0
    config.loss.conditioning = 1.0  # not in the paper; so few steps reach little more than half as far without it
    config.loss.contrast = 1.0  # nor this
    config.optimizer.learning_rate = 2e-3
    config.optimizer.end_learning_rate = 1e-5
    config.optimizer.warmup_steps = 30
    config.ema_decay = 0.99
    config.batch_size = 32
    config.num_steps = 1000
    config.dtype = "float32"
    config.checkpoint.every = 500
    config.log_every = 10
    config.sample = dict(every=500, count=8, steps=12, guidance_scale=3.0, seed=0)
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


def _text_encoder(names: str, context_length: int) -> ConfigDict:
    hidden_state = placeholder(int)  # empty: the one that the encoder's architecture is read at
    return ConfigDict(dict(id=names, context_length=context_length, prefix="", hidden_state=hidden_state))


def check(config: ConfigDict) -> None:
    """Refuse what no run can have.

    Raises:
      PeaError: naming the field.
    """
    wanted, found = base("").to_dict(), config.to_dict()
    _check_names(wanted, found)
    _check_numbers(wanted, found)
    _check_sizes(config)
    for least, names in LEAST.items():
        for name in names:
            if (value := _field(config, name)) < least:
                raise PeaError(f"config.{name}={value}: must be at least {least}")
    for most, names in MOST.items():
        for name in names:
            if (value := _field(config, name)) > most:
                raise PeaError(f"config.{name}={value}: must be at most {most}")
    for name in BELOW_1:
        if (value := _field(config, name)) >= 1:
            raise PeaError(f"config.{name}={value}: must be less than 1")
    for name, choices in CHOICES.items():
        if (value := _field(config, name)) not in choices:
            raise PeaError(f"config.{name}={value!r}: choose from {', '.join(filter(None, choices))}")
    if (size := config.batch_size) % (parts := config.num_microbatches):
        raise PeaError(f"config.num_microbatches={parts}: must divide config.batch_size={size}")
    if is_remote(folder := config.data.cache_dir or ""):
        raise PeaError(f"config.data.cache_dir={folder!r}: must be a folder on a disk, or mounted as one")
    if folder.split("/")[0] == "~":
        raise PeaError(f"config.data.cache_dir={folder!r}: ~ is not read here; write the whole path")
    if (low := config.min_timestep) >= (high := config.max_timestep):
        raise PeaError(f"config.min_timestep={low}: must be less than config.max_timestep={high}")
    if not any(value for name, value in config.loss.items() if name != "hybrid"):
        raise PeaError("config.loss: every weight is 0; there is nothing to learn from")


def _check_names(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """A field that a config file misspells is a new one to Python, and would change nothing."""
    if unknown := _missing(found, wanted):
        nearest = difflib.get_close_matches(unknown[0], _names(wanted), 1)
        advice = f"; did you mean config.{nearest[0]}?" if nearest else ""
        raise PeaError(f"config.{unknown[0]}: there is no such field{advice}")
    if missing := _missing(wanted, found):
        raise PeaError(f"config.{missing[0]}: is not there; the config file must keep every field of config.base")


def _check_numbers(wanted: Mapping[str, Any], found: Mapping[str, Any], prefix: str = "") -> None:
    """A group that a config file replaces may hold anything; and no comparison refuses nan."""
    for name, example in wanted.items():
        value, field = found[name], f"config.{prefix}{name}"
        if isinstance(example, Mapping):
            _check_numbers(example, value, f"{prefix}{name}.")
        elif kind := _lacking(example, value):
            raise PeaError(f"{field}={value!r}: must be {kind}")


def _lacking(example: Any, value: Any) -> str:
    """What `value` should be, to go where `example` is; empty: it does."""
    if isinstance(example, bool):
        return "" if isinstance(value, bool) else "True or False"
    if isinstance(example, numbers.Integral):
        return "" if isinstance(value, numbers.Integral) else "a whole number"
    return "a finite number" if isinstance(example, numbers.Real) and not _is_finite(value) else ""


def _check_sizes(config: ConfigDict) -> None:
    buckets, weights = config.data.buckets, config.data.bucket_weights
    if not _is_size(config.picture_size):
        raise PeaError(f"config.picture_size={config.picture_size!r}: must be (width, height), e.g. (64, 64)")
    if not isinstance(buckets, tuple | list) or not all(map(_is_size, buckets)):
        raise PeaError(f"config.data.buckets={buckets!r}: each must be (width, height), e.g. ((64, 64),)")
    if not buckets:
        raise PeaError("config.data.buckets: there are none; give at least one (width, height)")
    if len(set(map(tuple, buckets))) < len(buckets):  # one of the two would have no samples, in the place of the other
        raise PeaError(f"config.data.buckets={buckets!r}: each must be there once")
    if not isinstance(weights, tuple | list) or not all(map(_is_finite, weights)):
        raise PeaError(f"config.data.bucket_weights={weights!r}: must be finite numbers")


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(x, numbers.Integral) for x in value)


def _names(fields: Mapping[str, Any], prefix: str = "") -> list[str]:
    """All fields, dotted, groups too."""
    inner = [_names(value, f"{prefix}{name}.") for name, value in fields.items() if isinstance(value, Mapping)]
    return [prefix + name for name in fields] + sum(inner, [])


def _field(config: ConfigDict, name: str) -> Any:
    return functools.reduce(lambda fields, part: fields[part], name.split("."), config)


def of_run(workdir: pathlib.Path) -> ConfigDict | None:
    """The config in a work directory; None where no run was started.

    Raises:
      PeaError: the file cannot be read, or lacks a field.
    """
    path = workdir / "config.json"
    if not path.exists():
        return None
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PeaError(f"{path}: cannot be read ({error}); use another --workdir") from error
    if missing := _missing(json.loads(base("").to_json()), fields):
        raise PeaError(f"{path}: not a config of this version (without {missing[0]}); use another --workdir")
    return ConfigDict(fields)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields, dotted, in which two configs differ."""
    names = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            names.append(prefix + name)
    return names


def _missing(wanted: Mapping[str, Any], found: Any, prefix: str = "") -> list[str]:
    """The fields, dotted, that `found` does not have."""
    if not isinstance(found, Mapping):
        return [prefix.rstrip(".") or "any field"]
    absent = [prefix + name for name in wanted if name not in found]
    for name, value in wanted.items():
        if isinstance(value, Mapping) and name in found:
            absent += _missing(value, found[name], f"{prefix}{name}.")
    return absent
