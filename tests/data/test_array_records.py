import grain
import pytest

from pea_jax.data import array_records


def test_records_come_back(tmp_path):
    path = tmp_path / "a.array_record"
    array_records.write(path, [b"one", b"", b"x" * 100_000])
    source = grain.sources.ArrayRecordDataSource([str(path)])
    assert [source[number] for number in range(len(source))] == [b"one", b"", b"x" * 100_000]


def test_what_cannot_be_written_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        array_records.write(tmp_path / "gone" / "a.array_record", [b"one"])


def test_an_error_of_the_records_stays_what_it_is(tmp_path):
    def records():
        yield b"one"
        raise KeyError("two")

    with pytest.raises(KeyError, match="two"):
        array_records.write(tmp_path / "a.array_record", records())
