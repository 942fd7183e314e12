"""Translation by a Marian model, against transformers called by hand."""

import json
import pathlib
import shutil

import pytest
import torch
import transformers

from pea_jax.errors import PeaError
from pea_jax.judging import translation
from pea_jax.judging.prompts import Prompt
from pea_jax.judging.translation import translate
from tests import tiny_tokenizers
from tests.tiny_text_models import VOCABULARY, clip_tokenizer, randomise

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "de", "ru", "it"]
PROMPTS = [Prompt("a red cat", None, "", "1"), Prompt("apple", None, "", "2")]


def save_marian(folder: pathlib.Path) -> None:
    end = VOCABULARY - 1
    config = transformers.MarianConfig(
        vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32,
        pad_token_id=0, eos_token_id=end, bos_token_id=end - 1, decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    randomise(transformers.MarianMTModel(config)).save_pretrained(folder)
    clip_tokenizer(pad_token="!").save_pretrained(folder)


def test_marian_translates_and_is_asked_once(tmp_path: pathlib.Path, monkeypatch):
    monkeypatch.setattr(translation, "LONGEST", 12)  # tokens; random numbers never end
    save_marian(tmp_path / "model")
    kept = tmp_path / "out" / "translations.jsonl"
    texts = translate(str(tmp_path / "model"), PROMPTS[:1], "ru", kept)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    model = transformers.MarianMTModel.from_pretrained(tmp_path / "model")
    tokens = tokenizer(["a red cat"], return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**tokens, num_beams=4, do_sample=False, max_new_tokens=12)
    assert texts == [tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip()] and texts[0]
    more = translate(str(tmp_path / "model"), PROMPTS, "ru", kept)
    assert more[0] == texts[0]
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(row["id"], row["english"]) for row in rows] == [("1", more[0]), ("2", more[1])]
    shutil.rmtree(tmp_path / "model")
    assert translate(str(tmp_path / "model"), PROMPTS, "ru", kept) == more


def test_what_was_kept_is_read_whatever_its_letters(tmp_path: pathlib.Path):
    prompts, kept = [Prompt("красный\u2028кот", None, "", "1")], tmp_path / "translations.jsonl"
    found = {("1", prompts[0].prompt): "a red\x85cat"}
    translation._write(kept, "a model", prompts, found)
    assert translate("a model", prompts, "ru", kept) == ["a red\x85cat"]


def test_what_was_kept_stays_where_a_text_cannot_be_written(tmp_path: pathlib.Path):
    kept, found = tmp_path / "translations.jsonl", {("1", "a red cat"): "a red cat"}
    translation._write(kept, "a model", PROMPTS[:1], found)
    with pytest.raises(UnicodeEncodeError):
        translation._write(kept, "a model", PROMPTS, found | {("2", "apple"): "\ud800"})
    assert translate("a model", PROMPTS[:1], "ru", kept) == ["a red cat"] and list(tmp_path.iterdir()) == [kept]


def nllb(folder: pathlib.Path) -> transformers.PreTrainedTokenizerBase:
    return transformers.NllbTokenizer({word: number for number, word in enumerate(WORDS)}, [])


def mbart50(folder: pathlib.Path) -> transformers.PreTrainedTokenizerBase:
    return transformers.MBart50Tokenizer([(word, 0.0) for word in WORDS])


def m2m100(folder: pathlib.Path) -> transformers.PreTrainedTokenizerBase:
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(WORDS)}))
    (folder / "pieces.model").write_bytes(tiny_tokenizers.unigram())
    return transformers.M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "pieces.model"))


@pytest.mark.parametrize(
    ("make", "russian", "english"),
    [(nllb, "rus_Cyrl", "eng_Latn"), (mbart50, "ru_RU", "en_XX"), (m2m100, "__ru__", "__en__")],
)
def test_models_of_many_languages_are_told_in_their_own_codes(tmp_path: pathlib.Path, make, russian, english):
    tokenizer = make(tmp_path)
    options = translation._languages("model", tokenizer, "ru")
    assert tokenizer.convert_ids_to_tokens(options["forced_bos_token_id"]) == english
    assert russian in tokenizer.convert_ids_to_tokens(tokenizer("a")["input_ids"])
    with pytest.raises(PeaError, match="model: the language 'xx' is not known"):
        translation._languages("model", tokenizer, "xx")


def test_a_language_that_the_tokenizer_lacks_is_refused():
    class Tokenizer:
        src_lang, unk_token_id = None, 3

        def convert_tokens_to_ids(self, token: str) -> int:
            return {"en_XX": 7, "ru": 5}.get(token, 3)

    with pytest.raises(PeaError, match="has no token for the language 'ru'"):
        translation._languages("model", Tokenizer(), "ru")


def test_what_is_wrong_is_named(tmp_path: pathlib.Path):
    with pytest.raises(PeaError, match="no such model folder"):
        translate(str(tmp_path / "nothing"), PROMPTS, "ru", tmp_path / "a.jsonl")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(PeaError, match="not a translation model that transformers can load"):
        translate(str(tmp_path), PROMPTS, "ru", tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("{")
    with pytest.raises(PeaError, match="a.jsonl: not what was written there"):
        translate(str(tmp_path), PROMPTS, "ru", tmp_path / "a.jsonl")
