"""Sides in processes of their own: what they say, how they fail, and that nobody waits for them for ever."""

import os
import time

import pytest

from benchmarks.process import Failed, Process
from tests.benchmarks.waiting import Side


def test_a_side_answers_fails_and_goes_on():
    process = Process(Side, "one", deadline=float("inf"), environment={"SIDE_LANGUAGE": "Russian"})
    try:
        assert process.call("greet", "you") == "one greets you in Russian"
        assert "SIDE_LANGUAGE" not in os.environ
        with pytest.raises(Failed, match="RuntimeError: no room") as failed:
            process.call("fail", "no room")
        assert not failed.value.out_of_memory
        with pytest.raises(Failed) as failed:
            process.call("fail", "RESOURCE_EXHAUSTED: 3 GB")
        assert failed.value.out_of_memory and process.call("count") == 2
        process.begin("greet", "her")
        process.begin("count")
        assert process.result() == "one greets her in Russian" and process.result() == 2
        with pytest.raises(Failed, match="RuntimeError: out of memory; .* ValueError: still no room") as failed:
            process.call("break_down")
        assert failed.value.out_of_memory and process.call("count") == 3
        with pytest.raises(Failed, match="exit code 3"):
            process.call("die")
        process.begin("count")
        with pytest.raises(Failed, match="exit code 3"):
            process.result()
    finally:
        process.close()


def test_the_deadline_ends_what_hangs():
    start = time.monotonic()
    process = Process(Side, "two", deadline=start + 6)
    try:
        process.call("greet", "you")
        with pytest.raises(Failed, match="out of time"):
            process.call("hang")
    finally:
        process.close()
    assert time.monotonic() - start < 30


def test_a_result_may_have_to_come_earlier():
    process = Process(Side, "three", deadline=float("inf"))
    try:
        process.begin("greet", "you")
        process.begin("hang")
        assert process.result()
        with pytest.raises(Failed, match="out of time"):
            process.result(by=time.monotonic() + 0.1)
        with pytest.raises(Failed, match="ended with exit code -9"):
            process.call("greet", "you")
    finally:
        process.close()
