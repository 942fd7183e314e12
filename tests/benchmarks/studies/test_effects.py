"""What is asked of a fine-tuned model beside the new language, and the file of a LoRA."""

from types import SimpleNamespace

import numpy as np

from benchmarks.studies import effects


class Asked:
    """Stands in for a judge: says what it was asked."""

    frozen = SimpleNamespace(teacher="the teacher")

    def __init__(self, name: str):
        self.name = name

    def judge(self, conditioner, tuned, language: str = ""):
        return {"seen": (self.name, conditioner, tuned, language), "held out": None}


def test_english_is_asked_of_the_teacher_and_the_language_with_the_lora():
    tuned = {"part": 1}
    found = effects.effects(Asked("plain"), Asked("styled"), "the system", tuned, "seen")
    assert found == {
        "seen, in English": ("plain", "the teacher", tuned, "en"),
        "seen, with the LoRA": ("styled", "the system", tuned, ""),
    }


def test_a_lora_is_read_as_it_was_kept(tmp_path):
    rng = np.random.default_rng(0)
    style = {f"block.{n}.to_q.weight": dict(down=rng.normal(size=(4, 2)), up=rng.normal(size=(2, 3))) for n in (0, 1)}
    style = {name: {which: x.astype(np.float32) for which, x in pair.items()} for name, pair in style.items()}
    effects.save(tmp_path / "loras" / "one.safetensors", style)
    found = effects.load(tmp_path / "loras" / "one.safetensors")
    assert found.keys() == style.keys()
    for name, pair in style.items():
        assert all(np.array_equal(found[name][which], matrix) for which, matrix in pair.items())
    assert [path.name for path in (tmp_path / "loras").iterdir()] == ["one.safetensors"]
