"""The tokenizer of Chinese-CLIP's original files: BERT's, from a `vocab.txt` alone."""

import pathlib

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

from pea_jax.errors import PeaError
from pea_jax.text.tokenizer import Tokenizer
from pea_jax.weights.cn_clip import checkpoint_in

VOCABULARY = "vocab.txt"
UNKNOWN, CLS, SEP, PAD = "[UNK]", "[CLS]", "[SEP]", "[PAD]"
CONTEXT_LENGTH = 52  # of cn_clip.tokenize; PEA-Diffusion's own fork had 64
LONGEST_WORD = 200
# The library's own cleaning removes private characters too, which cn_clip takes for unknown ones.
REMOVED, SPACES = r"[\p{Cc}\p{Cf}\uFFFD&&[^\t\n\r]]", r"[\t\n\r\p{Zs}]"


def load_cn_clip_tokenizer(folder: pathlib.Path) -> Tokenizer:
    """Lower-cased, without accents, `[CLS]` and `[SEP]` around; `[MASK]` and the like in a text are ordinary text.

    Raises:
      PeaError: if `vocab.txt` is missing or not a vocabulary of BERT.
    """
    path = folder / VOCABULARY
    if not path.is_file():
        weights = checkpoint_in(folder).name
        raise PeaError(f"{path}: no such file; copy the one of cn_clip, or of bert-base-chinese, beside {weights}")
    try:
        with path.open(encoding="utf-8") as lines:  # not `str.splitlines`: one of BERT's Chinese tokens is U+2028
            ids = {token.strip(): number for number, token in enumerate(lines)}
        model = models.WordPiece(ids, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD)
    except ValueError as error:
        raise PeaError(f"{path}: not a vocabulary ({error}); copy or download it again") from error
    if missing := [token for token in (UNKNOWN, CLS, SEP, PAD) if token not in ids]:
        raise PeaError(f"{path}: not a vocabulary of BERT (no {missing[0]})")
    backend = tokenizers.Tokenizer(model)
    cleaning = [normalizers.Replace(Regex(REMOVED), ""), normalizers.Replace(Regex(SPACES), " ")]
    backend.normalizer = normalizers.Sequence([*cleaning, normalizers.BertNormalizer(clean_text=False, lowercase=True)])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing((SEP, ids[SEP]), (CLS, ids[CLS]))
    unknown = ids[UNKNOWN]
    return Tokenizer(backend, PAD, ids[PAD], "right", model_max_length=CONTEXT_LENGTH, unk_token_id=unknown)
