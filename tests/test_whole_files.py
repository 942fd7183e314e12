"""Files that are there in full or not at all."""

import pytest

from pea_jax.whole_files import PARTIAL, whole


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_replaced_at_the_end_alone(tmp_path, shared):
    path = tmp_path / "new" / "a.txt"
    with whole(path, shared=shared) as partial:
        partial.write_text("first")
        assert not path.exists()
    with whole(path, shared=shared) as partial:
        partial.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("shared", [False, True])
def test_after_an_error_nothing_is_left_and_what_was_there_stays(tmp_path, shared):
    path = tmp_path / "a.txt"
    path.write_text("first")
    with pytest.raises(ZeroDivisionError), whole(path, shared=shared) as partial:
        partial.write_text("second")
        raise ZeroDivisionError
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_those_who_write_one_file_at_once_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with whole(path, shared=True) as one, whole(path, shared=True) as other:
        assert one != other and PARTIAL not in one.name
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
