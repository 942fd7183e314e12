"""The frozen models of a training with random weights, made where they are used: no files, no tokenizers."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from benchmarks.networks import Config
from benchmarks.step_work import Work
from pea_jax.distill.models import FrozenModels, quantised
from pea_jax.mesh import replicated
from pea_jax.models.bert import Bert, BertConfig
from pea_jax.models.clip_text import CLIPText, CLIPTextConfig
from pea_jax.models.layers import abstract
from pea_jax.models.unet import UNet2DCondition, UNetConfig
from pea_jax.models.vae import AutoencoderKL, VAEConfig
from pea_jax.sampling.noise_schedule import SchedulerConfig
from pea_jax.text.conditioner import Conditioning, StableDiffusionXLConditioner
from pea_jax.text.encoders import TextEncoder

NUMBERS = 2**22 - 1  # odd, so that no matrix has equal rows


class Zeros:
    """In place of a tokenizer: every text is the same tokens."""

    def encode(self, texts: Sequence[str], length: int) -> dict[str, np.ndarray]:
        tokens = np.full((len(texts), length), 2, np.int32)
        return dict(input_ids=tokens, attention_mask=np.ones_like(tokens))


class Cached:
    """In place of a text encoder whose states are cached: knows its width and the encoding of the empty prompt."""

    def __init__(self, tokens: int, width: int, mesh: Mesh):
        self.hidden_size, self.mesh, self._null = width, mesh, jnp.zeros((1, tokens, width))

    def encode(self, texts: Sequence[str]) -> Any:
        return self._null, None


class CachedTeacher(Cached):
    def encode(self, texts: Sequence[str]) -> Any:
        return Conditioning(self._null)


def random_models(work: Work, mesh: Mesh, *, cached: bool) -> FrozenModels:
    """What a step of `work` needs; with cached latents and text states the UNet alone holds values."""
    networks, dtype = work.networks, jnp.dtype(work.config.dtype)
    student_tokens, teacher_tokens = work.tokens
    fill = functools.partial(_abstract if cached else random_network, mesh=mesh)
    vae = fill(AutoencoderKL, VAEConfig.from_dict, networks.vae, dtype)
    student: Any = Cached(student_tokens, networks.student["hidden_size"], mesh)
    teacher: Any = CachedTeacher(teacher_tokens, networks.prompt_dim, mesh)
    if not cached:
        bert = fill(Bert, BertConfig.from_dict, networks.student, dtype)
        names: Any = dict(tokenizer=Zeros(), name_or_path="random", architecture="random")
        student = TextEncoder(bert, **names, context_length=student_tokens, mesh=mesh)
        first, second = (
            fill(functools.partial(CLIPText, with_projection=projects), CLIPTextConfig.from_dict, size, dtype)
            for projects, size in ((False, networks.text_encoder), (True, networks.text_encoder_2))
        )
        tokenizers: Any = Zeros(), Zeros()
        teacher = StableDiffusionXLConditioner(tokenizers, (first, second), teacher_tokens, mesh)
    unet = random_network(UNet2DCondition, UNetConfig.from_dict, networks.unet, dtype, mesh=mesh)
    return FrozenModels(
        vae=vae,
        teacher=teacher,
        student=student,
        unet=quantised(work.config, unet),
        scheduler=SchedulerConfig.from_dict(networks.scheduler),
    )


def _abstract(network: Callable, parse: Callable, config: Config, dtype: Any, *, mesh: Mesh) -> Any:
    return abstract(lambda: network(parse(config), dtype=dtype, param_dtype=dtype))


def random_network(network: Callable, parse: Callable, config: Config, dtype: Any, *, mesh: Mesh) -> Any:
    """The network with normal weights of the variance that keeps a signal's; biases and norms vary too."""
    graphdef, state = nnx.split(_abstract(network, parse, config, dtype, mesh=mesh))
    flat = list(nnx.to_flat_state(state))
    drawn = jax.jit(functools.partial(_draw_all, flat), out_shardings=replicated(mesh))(jax.random.key(0))
    filled = [(path, variable.replace(value)) for (path, variable), value in zip(flat, drawn, strict=True)]
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def _draw_all(flat: Sequence[tuple[Any, Any]], key: jax.Array) -> list[jax.Array]:
    """On the device, of a few million random numbers, over and over: a generator a parameter takes long to compile."""
    largest = max(math.prod(variable.shape) for _, variable in flat)
    numbers = jax.random.normal(key, (min(largest, NUMBERS),), jnp.float32)
    return [_draw(str(path[-1]), variable, numbers) for path, variable in flat]


def _draw(kind: str, variable: Any, numbers: jax.Array) -> jax.Array:
    shape = variable.shape
    fan_in = math.prod(shape[1:] if kind == "weight" else shape[:-1])
    gain = 0.3 if len(shape) == 1 else fan_in**-0.5
    scaled = (float(kind == "scale") + gain * numbers[: math.prod(shape)]).astype(variable.dtype)
    return jnp.resize(scaled, shape)
