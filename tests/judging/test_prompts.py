"""Prompt files: the project's own sets, and what a user may write."""

import json
import pathlib
from collections import Counter

import pytest

from pea_jax.errors import PeaError
from pea_jax.judging.prompts import NO_CATEGORY, Prompt, read_prompts, read_translations

LETTERS = {"ru": "Ѐӿ", "zh": "一鿿", "ja": "ぁ鿿", "ko": "가힣", "it": "az"}


@pytest.mark.parametrize("language", LETTERS)
def test_the_projects_own_sets(language: str):
    prompts = read_prompts(f"assets/prompts/{language}.jsonl")
    assert Counter(prompt.category for prompt in prompts) == {"general": 40, "culture": 40}
    assert all(prompt.english for prompt in prompts[:40]) and sum(not prompt.english for prompt in prompts) >= 5
    assert len({prompt.prompt for prompt in prompts}) == 80
    first, last = LETTERS[language]
    assert all(any(first <= letter <= last for letter in p.prompt) for p in prompts)
    english = [prompt.english for prompt in read_prompts("assets/prompts/ru.jsonl")[:40]]
    assert [prompt.english for prompt in prompts[:40]] == english


def test_lines_and_json(tmp_path: pathlib.Path):
    (tmp_path / "a.txt").write_text("красное яблоко\n\n  собака \n", "utf-8")
    expected = [Prompt("красное яблоко", None, NO_CATEGORY, "1"), Prompt("собака", None, NO_CATEGORY, "2")]
    assert read_prompts(tmp_path / "a.txt") == expected
    rows = [dict(prompt="кот", english="a cat", category="animals", id="cat"), dict(prompt="дом")]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prompts = read_prompts(tmp_path / "a.jsonl")
    assert prompts == [Prompt("кот", "a cat", "animals", "cat"), Prompt("дом", None, NO_CATEGORY, "2")]
    (tmp_path / "t.jsonl").write_text(
        '{"id": 2, "english": "house"}\n{"id": "cat", "english": "tomcat"}\n', "utf-8-sig"
    )
    assert read_translations(tmp_path / "t.jsonl", prompts) == ["tomcat", "house"]
    (tmp_path / "T.JSONL").write_bytes((tmp_path / "t.jsonl").read_bytes())
    assert read_translations(tmp_path / "T.JSONL", prompts) == ["tomcat", "house"]
    (tmp_path / "t.txt").write_text("tomcat\nhouse\n", "utf-8-sig")  # with a byte order mark
    assert read_translations(tmp_path / "t.txt", prompts) == ["tomcat", "house"]


def test_separators_within_a_translation_end_no_line(tmp_path: pathlib.Path):
    prompts = [Prompt("кот", None, "", "cat")]
    (tmp_path / "t.txt").write_text("a\u2028cat\n", "utf-8")
    (tmp_path / "t.jsonl").write_text('{"id": "cat", "english": "a\u2028cat"}\n', "utf-8")
    for name in ("t.txt", "t.jsonl"):
        assert read_translations(tmp_path / name, prompts) == ["a\u2028cat"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no prompts"),
        ('{"prompt": "a"}\n{', "a.jsonl:2: not valid JSON"),
        ('{"prompt": "a", "english": 3}', "english=3 must be a string"),
        ('{"prompt": "a", "seed": 3}', "prompt 1 has seed"),
        ('{"prompt": "a", "category": "all"}', "prompt 1 has the category 'all', which stands for every one"),
        ('{"prompt": "a", "id": "2"}\n{"prompt": "b"}', "2 prompts have the id '2'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: pathlib.Path, content: str, said: str):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(PeaError, match=said):
        read_prompts(tmp_path / "a.jsonl")


def test_translations_that_do_not_fit(tmp_path: pathlib.Path):
    prompts = [Prompt("кот", None, "", "cat"), Prompt("дом", None, "", "house")]
    for name, content, said in [
        ("a.txt", "one\n", "1 lines for 2 prompts"),
        ("a.jsonl", '{"id": "cat", "english": "cat"}', "1 prompts are not in it .*'house'"),
        ("b.jsonl", '{"id": "cat"}', "b.jsonl:1: needs an id and a text `english`"),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(PeaError, match=said):
            read_translations(tmp_path / name, prompts)
    with pytest.raises(PeaError, match="nowhere.jsonl: no such file"):
        read_translations(tmp_path / "nowhere.jsonl", prompts)
