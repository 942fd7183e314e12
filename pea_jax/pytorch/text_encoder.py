"""Frozen text encoders in PyTorch, called as the adapter's `config.json` says."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pea_jax.errors import PeaError
from pea_jax.pytorch.networks import load_network
from pea_jax.text.architectures import ARCHITECTURES, architecture_of
from pea_jax.text.framed_tokenizer import FramedTokenizer
from pea_jax.text.tokenizer import Tokenizer, check_padding, is_unicode, rules_of
from pea_jax.weights.locations import SEPARATOR, locate


@dataclasses.dataclass
class Part:
    """One network with its tokenizer; `hidden_state` -1 is the last one.

    `positions_from_zero`: the network is told the positions 0, 1, 2, ..., against its own rule.
    """

    network: Any
    tokenizer: Tokenizer | FramedTokenizer
    prefix: str
    hidden_state: int
    masked: bool
    positions_from_zero: bool
    # A copy on the device and in the dtype in use, and which these are.
    _cast: Any = dataclasses.field(default=None, init=False, repr=False)
    _cast_to: Any = dataclasses.field(default=None, init=False, repr=False)

    @property
    def hidden_size(self) -> int:
        """The width of the states; the last one of AltCLIP is projected."""
        config = self.network.config
        return config.project_dim if self.hidden_state == -1 and hasattr(config, "project_dim") else config.hidden_size

    def encode(self, texts: Sequence[str], context_length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """States `[B, L, D]`."""
        tokens = self.tokenizer.encode([self.prefix + text for text in texts], context_length)
        input_ids, mask = (torch.from_numpy(tokens[name]).long().to(device) for name in ("input_ids", "attention_mask"))
        # T5 was trained in bfloat16: its states overflow float16.
        half = dtype == torch.float16 and "t5" in self.network.config.model_type
        network = self._network_on(device, torch.float32 if half else dtype)
        every = self.hidden_state != -1
        positions = dict(position_ids=torch.arange(context_length, device=device)[None])
        found = network(
            input_ids,
            attention_mask=mask if self.masked else None,
            output_hidden_states=every,
            **(positions if self.positions_from_zero else {}),
        )
        return found.hidden_states[self.hidden_state] if every else found.last_hidden_state

    def _network_on(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The network there and in that dtype; the weights that were loaded keep all their digits.

        In float32 they are moved, in another dtype copied; of copies there is one at a time.
        """
        if dtype == torch.float32:
            self._cast = None
            return self.network.to(device)
        if self._cast is None or self._cast_to != (device, dtype):
            self._cast = None  # before the next one takes memory
            self._cast, self._cast_to = _copied(self.network, device, dtype), (device, dtype)
        return self._cast


def _copied(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Tensor by tensor: the whole is never copied in its own dtype."""
    made: dict[int, Any] = {}  # what `deepcopy` is told to take
    for tensor in network.parameters():
        made[id(tensor)] = torch.nn.Parameter(tensor.to(device, dtype), requires_grad=False)
    for tensor in network.buffers():
        made[id(tensor)] = tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
    return copy.deepcopy(network, made)


@dataclasses.dataclass
class TextEncoder:
    """One encoder, or several whose states are put side by side."""

    parts: list[Part]
    context_length: int

    @property
    def hidden_size(self) -> int:
        """The width of the states."""
        return sum(part.hidden_size for part in self.parts)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], device: torch.device, dtype: torch.dtype) -> Tensor:
        """States `[B, L, D]`, padding included.

        Raises:
          PeaError: `texts` is one string, or none, something else is among them, or one holds half of a surrogate pair.
        """
        if isinstance(texts, str) or not len(texts) or not all(isinstance(text, str) for text in texts):
            raise PeaError(f"texts={texts!r}: must be a list of texts with one at least")
        if broken := [text for text in texts if not is_unicode(text)]:
            raise PeaError(f"{ascii(broken[0])}: holds half of a surrogate pair, which is no letter; remove it")
        return torch.cat([part.encode(texts, self.context_length, device, dtype) for part in self.parts], dim=-1)


def load_text_encoders(rule: Mapping[str, Any]) -> TextEncoder:
    """What `text_encoder` of an adapter's config.json names.

    Raises:
      PeaError: the rule lacks something, or an encoder is missing, broken or not known.
    """
    if missing := [name for name in ("id", "context_length") if name not in rule]:
        raise PeaError(f"text_encoder of the adapter's config.json lacks {', '.join(missing)}; export it again")
    names = rule["id"].split(SEPARATOR)
    rules = zip(names, rules_of(rule, len(names)), strict=True)
    return TextEncoder([_load(name, each) for name, each in rules], rule["context_length"])


def _load(name: str, rule: Mapping[str, Any]) -> Part:
    folder = locate(name)
    # Adapters brought in from elsewhere say what the config did, which leaves the rest to the architecture.
    architecture = rule.get("architecture") or architecture_of(folder)
    if (row := ARCHITECTURES.get(architecture)) is None:
        raise PeaError(f"{name}: architecture {architecture} is not known (known: {', '.join(ARCHITECTURES)})")
    hidden_state = rule.get("hidden_state")
    network, tokenizer = load_network(folder, row.network, architecture), row.load_tokenizer(folder)
    check_padding(tokenizer, rule, name)
    return Part(
        network,
        tokenizer,
        rule.get("prefix", ""),
        row.hidden_state if hidden_state is None else hidden_state,
        rule.get("masked", row.masked),
        positions_from_zero=row.network == "hybrid_clip",
    )
