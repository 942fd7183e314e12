import pytest

from pea_jax.data.table_rows import TableRows
from pea_jax.errors import BadSample, PeaError


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\r\n{"a": "\xd1\x89"}\nno\n[1]\n' + b"[" * 100_000 + b"\n")
    return TableRows(str(tmp_path / "a.jsonl"))


def test_rows(rows):
    assert len(rows) == rows.part.count == 5
    assert (rows[0], rows[1]) == ({"a": 1}, {"a": "щ"})


@pytest.mark.parametrize(("number", "message"), [(2, "not JSON"), (3, "not a JSON object"), (4, "not JSON")])
def test_what_is_no_record_is_a_bad_sample(rows, number, message):
    with pytest.raises(BadSample, match=rf"a\.jsonl: row {number + 1}: {message}"):
        rows[number]


def test_missing(tmp_path):
    with pytest.raises(PeaError, match=r"b\.jsonl: no such file"):
        TableRows(str(tmp_path / "b.jsonl"))
