"""Which text encoder an adapter is judged behind, and what pictures depend on."""

import json
import pathlib
import types
from typing import Any

import pytest
from flax import nnx
from ml_collections import ConfigDict

from pea_jax import config as configs
from pea_jax.adapter import AdapterDims, PEAdapter
from pea_jax.errors import PeaError
from pea_jax.judging.prompts import Prompt
from pea_jax.judging.systems import conditioner_of, english_systems
from pea_jax.mesh import make_mesh
from pea_jax.text.encoders import load_text_encoder
from pea_jax.text.joined import load_text_encoders, with_padding

ENCODER = "assets/multilingual-e5-small"
GIVEN = dict(id=ENCODER, context_length=16, prefix="", hidden_state=None)


@pytest.fixture(scope="module")
def frozen() -> types.SimpleNamespace:
    return types.SimpleNamespace(student=load_text_encoder(ENCODER, context_length=16, mesh=make_mesh()))


@pytest.fixture
def judged(frozen: types.SimpleNamespace, tmp_path: pathlib.Path):
    """The text encoder behind which an adapter is judged whose config.json says this of it."""

    def judge(rule: dict[str, object]):
        adapter = PEAdapter(AdapterDims(384, 16, 20, 40), rngs=nnx.Rngs(0))
        adapter.save_pretrained(tmp_path / "adapter", json.loads(json.dumps(dict(text_encoder=rule))), "card")
        config = ConfigDict(dict(text_encoder=GIVEN, dtype="float32"))
        return conditioner_of(config, frozen, str(tmp_path / "adapter"), make_mesh()).text_encoder

    return judge


def test_the_configs_own_is_not_loaded_again(frozen, judged):
    for rule in (frozen.student.describe(), GIVEN):  # of training; of a published adapter that was brought in
        assert judged(rule) is frozen.student


def test_nor_are_several_side_by_side(tmp_path: pathlib.Path):
    """Brought in, each of them says how it pads; not those of another hidden state."""
    given = {**GIVEN, "id": f"{ENCODER} + {ENCODER}", "context_length": 8}
    frozen: Any = types.SimpleNamespace(student=load_text_encoders(given["id"], context_length=8, mesh=make_mesh()))
    trained = frozen.student.describe()
    other = {**trained, "encoders": [trained["encoders"][0], {**trained["encoders"][1], "hidden_state": -2}]}
    config = ConfigDict(dict(text_encoder=given, dtype="float32"))
    for rule, is_ours in ((trained, True), (with_padding(given), True), (other, False)):
        adapter = PEAdapter(AdapterDims(768, 16, 20, 40), rngs=nnx.Rngs(0))
        adapter.save_pretrained(tmp_path / "adapter", json.loads(json.dumps(dict(text_encoder=rule))), "card")
        found = conditioner_of(config, frozen, str(tmp_path / "adapter"), make_mesh()).text_encoder
        assert (found is frozen.student) == is_ours


@pytest.mark.parametrize(("name", "value"), [("hidden_state", -2), ("prefix", "query: "), ("context_length", 12)])
def test_another_way_of_calling_it_is_that_of_the_adapter(frozen, judged, name: str, value: object):
    assert getattr(judged({**frozen.student.describe(), name: value}), name) == value


def test_a_tokenizer_that_pads_otherwise_is_refused(frozen, judged):
    with pytest.raises(PeaError, match="pad_token='<pad>', the adapter was trained with '</s>'"):
        judged({**frozen.student.describe(), "pad_token": "</s>"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("quantisation.weights", "int8"), ("dtype", "bfloat16"), ("vae_dtype", "bfloat16"), ("base_model_config", "sd")],
)
def test_pictures_of_another_arithmetic_are_others(field: str, value: str):
    """So that a folder of them is not gone on with."""

    def origin(**fields: str):
        config, prompts = configs.emoji("ru"), [Prompt("кот", "cat", "", "1")]
        config.update_from_flattened_dict(fields)
        (system,) = english_systems(config, types.SimpleNamespace(teacher=None), prompts, None)
        return json.loads(json.dumps(system.origin))

    assert origin(**{field: value}) != origin() == dict(base_model="assets/teacher", dtype="float32")
