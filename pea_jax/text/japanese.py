"""The tokenizer of rinna's Japanese CLIP and CLOOB, which is that of its `japanese-roberta-base`."""

import pathlib
import re
from typing import Any

from pea_jax.errors import PeaError
from pea_jax.text.framed_tokenizer import FramedTokenizer

CLS, PAD = "[CLS]", "[PAD]"
SPECIAL_TOKENS = ("<s>", "</s>", "<unk>", CLS, PAD, "[SEP]", "[MASK]")
MODEL = "spiece.model"


def load_japanese_tokenizer(folder: pathlib.Path) -> FramedTokenizer:
    """Sentencepiece on the lower-cased text with `[CLS]` in front and nothing behind (`japanese_clip.tokenize`).

    Special tokens in the text are kept as such, and are not lower-cased.

    Raises:
      PeaError: if `spiece.model` is missing or broken, or the library is not installed.
    """
    processor = _processor(folder / MODEL)
    specials = {token: processor.piece_to_id(token) for token in SPECIAL_TOKENS}
    if missing := [token for token in (CLS, PAD) if specials[token] == processor.unk_id()]:
        raise PeaError(f"{folder / MODEL}: has no token {missing[0]}; it must be that of rinna/japanese-roberta-base")
    at_specials = re.compile("(" + "|".join(map(re.escape, specials)) + ")")

    def text_to_ids(text: str) -> list[int]:
        pieces = at_specials.split(text)
        ids = [[specials[piece]] if piece in specials else processor.encode(piece.lower()) for piece in pieces]
        return sum(ids, [])

    return FramedTokenizer(
        text_to_ids=text_to_ids,
        first=(specials[CLS],),
        last=(),
        pad_token=PAD,
        pad_token_id=specials[PAD],
        vocab_size=processor.get_piece_size(),
        model_max_length=None,
        unk_token_id=processor.unk_id(),
    )


def _processor(path: pathlib.Path) -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise PeaError(f"{path}: takes sentencepiece to read; install the extra `pea_jax[transformers]`") from error
    if not path.is_file():
        raise PeaError(f"{path}: no such file; it comes with rinna/japanese-roberta-base, copy it beside the weights")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise PeaError(f"{path}: not a sentencepiece model; copy or download it again") from error
