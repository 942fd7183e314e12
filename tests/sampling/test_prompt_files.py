"""Files of prompts: what is read, and what is wrong with them by line."""

import json

import pytest

from pea_jax.errors import PeaError
from pea_jax.sampling.prompt_files import Prompt, read_prompts


def test_one_prompt_a_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffкрасное яблоко\r\n\n  кот \n".encode())
    assert read_prompts(path) == [Prompt("красное яблоко"), Prompt("кот")]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_separators_within_a_text_end_no_line(tmp_path, separator):
    """JSON that is not kept in ASCII has them as they are, and so have texts from the web."""
    text = f"кот{separator}пёс"
    (tmp_path / "a.jsonl").write_text(json.dumps(dict(prompt=text), ensure_ascii=False) + "\n", "utf-8")
    (tmp_path / "a.txt").write_text(f"{text}\n", "utf-8")
    assert read_prompts(tmp_path / "a.jsonl") == read_prompts(tmp_path / "a.txt") == [Prompt(text)]


@pytest.mark.parametrize("name", ["prompts.jsonl", "PROMPTS.JSONL"])
def test_objects(tmp_path, name):
    path = tmp_path / name
    whole = dict(prompt="кот", negative_prompt="", seed=2**32 - 1, size=[64, 32], category="animals", id="a1")
    path.write_text("\n".join(map(json.dumps, [whole | dict(english="cat", source={"page": 3}), dict(prompt="пёс")])))
    first, second = read_prompts(path)
    fields = whole | dict(size=(64, 32), english="cat", others={"source": {"page": 3}})
    assert (first, second) == (Prompt(**fields), Prompt("пёс"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not valid JSON"),
        ('"кот"', ":2: must be an object with a prompt"),
        ('{"text": "кот"}', ":2: must be an object with a prompt"),
        ('{"prompt": " "}', ":2: must be an object with a prompt"),
        ('{"prompt": "кот", "negativ_prompt": ""}', ":2: has a field 'negativ_prompt'; 'negative_prompt' is meant?"),
        ('{"prompt": "кот", "category": 3}', ":2: category=3 must be a string"),
        (r'{"prompt": "\ud83c кот"}', ":2: prompt holds half of a surrogate pair"),
        (r'{"prompt": "кот", "english": "cat \ud83c"}', ":2: english holds half of a surrogate pair"),
        ('{"prompt": "кот", "seed": -1}', ":2: seed=-1 must be a whole number from 0"),
        ('{"prompt": "кот", "seed": true}', ":2: seed=True must be a whole number"),
        ('{"prompt": "кот", "size": [64]}', r":2: size=\[64\] must be \[width, height\]"),
        ('{"prompt": "кот", "size": [64, 0]}', r":2: size=\[64, 0\] must be"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "кот"}\n' + line)
    with pytest.raises(PeaError, match=message):
        read_prompts(path)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name, message in (("empty", "has no prompts"), ("latin", "not UTF-8"), ("none", "No such file")):
        with pytest.raises(PeaError, match=rf"{name}\.txt: .*{message}"):
            read_prompts(tmp_path / f"{name}.txt")
