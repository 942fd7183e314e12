"""Byte-pair encoding by the `bpe.model` files of YouTokenToMe, the tokenizer of ruCLIP.

The file is text: the numbers of characters and of merge rules, then one a line, a character's code point and id, a
rule's left, right and merged id (the most important rule first), and last the ids of unknown, padding, beginning, end.
Two rules may spell the same token under two ids, which the `tokenizers` library cannot express.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

from pea_jax.errors import PeaError
from pea_jax.text.framed_tokenizer import FramedTokenizer
from pea_jax.weights.config_files import read_config

SPACE = "▁"  # begins every word, and counts as a space in a text
SPACES = SPACE + " \t\n\v\f\r"  # the others are ordinary characters, as for isspace() in C
UNKNOWN = -1  # while a word is merged: no rule has it


@dataclasses.dataclass(frozen=True)
class YouTokenToMe:
    """`characters` to ids; `rules` from a pair of ids to their rank and the id of the two together."""

    characters: Mapping[str, int]
    rules: Mapping[tuple[int, int], tuple[int, int]]
    unknown_id: int
    pad_id: int
    bos_id: int
    eos_id: int

    @classmethod
    def from_file(cls, path: pathlib.Path) -> "YouTokenToMe":
        """Reads a `bpe.model`.

        Raises:
          PeaError: if the file is missing, cut short or something else.
        """
        try:
            lines = [tuple(map(int, line.split())) for line in path.read_text("ascii").splitlines()]
            num_characters, num_rules = lines[0]
            if len(lines) != num_characters + num_rules + 2:
                raise ValueError(f"{len(lines)} lines instead of {num_characters + num_rules + 2}")
            characters = {chr(code): number for code, number in lines[1 : num_characters + 1]}
            merges = enumerate(lines[num_characters + 1 : -1])
            rules = {(left, right): (rank, merged) for rank, (left, right, merged) in merges}
            if SPACE not in characters:
                raise ValueError(f"no id for {SPACE}")
            return cls(characters, rules, *lines[-1])
        except FileNotFoundError:
            raise PeaError(f"{path}: no such file") from None
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise PeaError(f"{path}: not a YouTokenToMe model ({error}); copy or download it again") from error

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        specials = self.unknown_id, self.pad_id, self.bos_id, self.eos_id
        return 1 + max(*specials, *self.characters.values(), *(merged for _, merged in self.rules.values()))

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without those of beginning and end."""
        words = "".join(" " if character in SPACES else character for character in text).split(" ")
        return [number for word in words if word for number in self._encode_word(word)]

    def _encode_word(self, word: str) -> list[int]:
        ids = [self.characters[SPACE]]
        for character in word:
            number = self.characters.get(character, UNKNOWN)
            if number != UNKNOWN or ids[-1] != UNKNOWN:  # unknown characters in a row are one token
                ids.append(number)
        while found := self._mergeable(ids):
            _, at, merged = min(found)
            ids[at : at + 2] = [merged]
        return [self.unknown_id if number == UNKNOWN else number for number in ids]

    def _mergeable(self, ids: list[int]) -> list[tuple[int, int, int]]:
        """Rank, position and merged id of every neighbouring pair that has a rule."""
        pairs = enumerate(zip(ids, ids[1:], strict=False))
        return [(self.rules[pair][0], at, self.rules[pair][1]) for at, pair in pairs if pair in self.rules]


def load_youtokentome(folder: pathlib.Path) -> FramedTokenizer:
    """The tokenizer of a ruCLIP folder: lower-cased, between beginning and end, padded to its `context_length`.

    Raises:
      PeaError: if `bpe.model` or `config.json` is missing or broken.
    """
    encoder = YouTokenToMe.from_file(folder / "bpe.model")
    return FramedTokenizer(
        text_to_ids=lambda text: encoder.encode(text.lower()),
        first=(encoder.bos_id,),
        last=(encoder.eos_id,),
        pad_token="<PAD>",
        pad_token_id=encoder.pad_id,
        vocab_size=encoder.vocab_size,
        model_max_length=read_config(folder, lambda config: config.get("context_length")),
        unk_token_id=encoder.unknown_id,
    )
