"""The trainable part: a small network from a text encoder's token states to the denoiser's conditioning."""

import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from safetensors.numpy import save

from pea_jax.errors import PeaError
from pea_jax.weights.adapter_layouts import CONFIG, WEIGHTS, check_layout, find_adapter, open_published
from pea_jax.weights.stored import StoredArray
from pea_jax.weights.torch_names import fill, to_torch_names

CARD = "README.md"
SAMPLES = "samples.png"


@dataclasses.dataclass(frozen=True)
class AdapterDims:
    """Widths of the adapter.

    Stable Diffusion XL's are pooled 1280 and output 2048; Stable Diffusion 1.5's None and 768, as it takes no pooled
    embedding. `use_bias` is of the projector: the oldest published adapters have biases there.
    """

    input_dim: int
    hidden_dim: int
    pooled_dim: int | None
    output_dim: int
    num_layers: int = 3
    use_bias: bool = False


class GELU(nnx.Module):
    """Exact GELU; holds the places that PyTorch's `nn.Sequential` gives to activations."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.gelu(x, approximate=False)


class PEAdapter(nnx.Module):
    """LayerNorm, linears with GELU between, one more linear to the tokens (`MLP` of PEA-Diffusion).

    The one more linear, `fc`, is None where nothing is pooled.
    """

    def __init__(self, dims: AdapterDims, *, rngs: nnx.Rngs):
        last = dims.output_dim if dims.pooled_dim is None else dims.pooled_dim
        widths = [dims.input_dim, *[dims.hidden_dim] * (dims.num_layers - 1), last]
        linears = [_linear(a, b, use_bias=dims.use_bias, rngs=rngs) for a, b in zip(widths, widths[1:], strict=False)]
        layers = [layer for linear in linears for layer in (linear, GELU())][:-1]
        self.dims = dims
        self.layernorm = nnx.LayerNorm(dims.input_dim, epsilon=1e-5, rngs=rngs)
        self.projector = nnx.List(layers)
        self.fc = None if dims.pooled_dim is None else _linear(last, dims.output_dim, use_bias=True, rngs=rngs)

    def __call__(self, states: Array) -> tuple[Array, Array | None]:
        """States `[B, L, input_dim]` -> `prompt_embeds [B, L, output_dim]`, `pooled_prompt_embeds [B, pooled_dim]`.

        The pooled embedding is the mean over all L positions, padding included, as published: context length and
        padding must be those of training. Without a `pooled_dim` it is None.
        """
        # All tokens in one axis: in two, XLA's CPU backend transposes what comes back before each gradient of a weight.
        y = self.layernorm(states.astype(jnp.float32)).reshape(-1, states.shape[-1])
        for layer in self.projector:
            y = layer(y)
        by_text = (*states.shape[:2], -1)
        if self.fc is None:
            return y.reshape(by_text), None
        prompt_embeds = self.fc(jax.nn.gelu(y, approximate=False))
        return prompt_embeds.reshape(by_text), jnp.mean(y.reshape(by_text), axis=1)

    def start_linear(self, states: Array, key: Array) -> None:
        """Start as a linear map of standardised features, rather than as PyTorch starts.

        `layernorm` starts so that each feature of `states` `[N, L, input_dim]` leaves it with mean 0 and variance 1:
        encoders trained by contrast put all texts into a narrow cone, and gradient descent is slow to find what tells
        them apart (data-dependent initialisation, Salimans and Kingma 2016). The projector starts with hidden units in
        pairs of opposite sign, GELU(x) - GELU(-x) being x (the "looks linear" initialisation of Balduzzi et al. 2017):
        a linear map carries over best to texts that were not trained on.

        Raises:
          PeaError: the hidden units do not come in pairs.
        """
        if self.dims.hidden_dim % 2 and self.dims.num_layers > 1:
            raise PeaError(f"adapter.hidden_dim={self.dims.hidden_dim} must be even for a linear start")
        normal = jax.nn.standardize(states.astype(jnp.float32), epsilon=self.layernorm.epsilon)
        mean, deviation = normal.mean((0, 1)), normal.std((0, 1)) + 1e-6
        self.layernorm.scale, self.layernorm.bias = nnx.Param(1 / deviation), nnx.Param(-mean / deviation)
        linears = [layer for layer in self.projector if isinstance(layer, nnx.Linear)]
        keys = jax.random.split(key, len(linears))
        for number, layer in enumerate(linears):
            layer.kernel[...] = _paired(keys[number], layer.kernel.shape, number > 0, number < len(linears) - 1)

    @classmethod
    def from_pretrained(cls, folder: str | pathlib.Path) -> "PEAdapter":
        """The adapter of a directory that `save_pretrained` wrote; its widths are read from the tensors' shapes.

        Args:
          folder: the directory, or OWNER/NAME of an adapter on the Hugging Face Hub.

        Raises:
          PeaError: no such directory, or the file is broken or no adapter.
        """
        return cls.from_published(find_adapter(folder) / WEIGHTS)

    @classmethod
    def from_published(cls, path: str | pathlib.Path) -> "PEAdapter":
        """The adapter of one file in any of the published layouts (`weights.adapter_layouts`), pickled or safetensors.

        Raises:
          PeaError: no such file, or it is broken or no adapter.
        """
        tensors = open_published(pathlib.Path(path))
        places = check_layout(tensors, source=str(path))
        _check_axes(tensors, source=str(path))
        dims = _dims(tensors, places)
        return fill(nnx.eval_shape(lambda: cls(dims, rngs=nnx.Rngs(0))), tensors, source=str(path))

    def save_pretrained(self, folder: str | pathlib.Path, config: Mapping[str, Any], card: str) -> None:
        """Write weights (PyTorch names and layouts), config.json and the model card; all of them or nothing.

        An adapter that is there is replaced as a whole.

        Raises:
          PeaError: the folder cannot be written, or holds something else.
        """
        folder = pathlib.Path(folder)
        check_replaceable(folder)
        place = folder.resolve()  # a link stays one
        partial, replaced = (place.with_name(place.name + end) for end in (".partial", ".replaced"))
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            (partial / WEIGHTS).write_bytes(save(to_torch_names(self)))  # `save_file` lets nobody else read it
            # In ASCII: it is read with the encoding of whatever machine it comes to.
            (partial / CONFIG).write_text(json.dumps(dict(config), indent=2) + "\n")
            (partial / CARD).write_text(card, "utf-8")
            shutil.rmtree(replaced, ignore_errors=True)
            if place.is_dir():
                place.rename(replaced)  # not removed yet: a part of it, which a kill leaves, would be refused
            partial.rename(place)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise PeaError(f"{folder}: the adapter cannot be written there ({error.strerror})") from error
        shutil.rmtree(replaced, ignore_errors=True)


def is_complete(folder: pathlib.Path) -> bool:
    """Whether all files of an adapter directory are there."""
    return all((folder / name).is_file() for name in (WEIGHTS, CONFIG, CARD))


def check_replaceable(folder: pathlib.Path) -> None:
    """Refuse to write an adapter in the place of something else.

    Raises:
      PeaError: `folder` is a file or `.`, or has something in it that is not of an adapter.
    """
    if not folder.name:  # a folder that somebody stands in cannot be replaced as a whole
        raise PeaError(f"{folder}: cannot be replaced by an adapter; name a directory in it, e.g. {folder / 'adapter'}")
    if folder.exists() and not folder.is_dir():
        raise PeaError(f"{folder}: is a file; name a directory for the adapter")
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if found and WEIGHTS not in found:
        raise PeaError(f"{folder}: would be replaced, but holds no adapter ({found[0]}); name a new directory")
    if foreign := [name for name in found if name not in (WEIGHTS, CONFIG, CARD, SAMPLES)]:
        raise PeaError(f"{folder}: would be replaced, but holds more than an adapter ({foreign[0]}); name another")


def _check_axes(tensors: Mapping[str, StoredArray], *, source: str) -> None:
    for name, tensor in tensors.items():
        if re.fullmatch(r"(projector\.\d+|fc)\.weight", name) and len(tensor.shape) != 2:
            raise PeaError(f"{source}: {name} is {list(tensor.shape)}, must have two axes; copy the adapter again")


def _dims(tensors: Mapping[str, StoredArray], places: list[int]) -> AdapterDims:
    first, last = tensors["projector.0.weight"], tensors[f"projector.{places[-1]}.weight"]
    pooled = "fc.weight" in tensors
    return AdapterDims(
        input_dim=first.shape[1],
        hidden_dim=first.shape[0],
        pooled_dim=last.shape[0] if pooled else None,
        output_dim=tensors["fc.weight"].shape[0] if pooled else last.shape[0],
        num_layers=len(places),
        use_bias="projector.0.bias" in tensors,
    )


def _paired(key: Array, shape: tuple[int, ...], inputs_paired: bool, outputs_paired: bool) -> Array:
    """An orthogonal matrix for units of which the second half are the first with opposite sign; the last one small."""
    size = shape[0] // (1 + inputs_paired), shape[1] // (1 + outputs_paired)
    matrix = jax.nn.initializers.orthogonal(1.0 if outputs_paired else 0.1)(key, size)
    matrix = jnp.concatenate([matrix, -matrix]) if inputs_paired else matrix
    return jnp.concatenate([matrix, -matrix], axis=1) if outputs_paired else matrix


def _linear(inputs: int, outputs: int, *, use_bias: bool, rngs: nnx.Rngs) -> nnx.Linear:
    """PyTorch's default initialisation, uniform within 1 / sqrt(inputs), which the published recipe starts from."""
    uniform = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return nnx.Linear(inputs, outputs, use_bias=use_bias, kernel_init=uniform, rngs=rngs)
