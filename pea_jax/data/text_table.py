"""Captions without pictures: a table, `.jsonl` or `.parquet`, whose columns are the record."""

from pea_jax.data.parquet_rows import picture_columns
from pea_jax.data.samples import Part, Sample
from pea_jax.data.table_rows import TableRows
from pea_jax.errors import BadSample, PeaError

TABLES = (".jsonl", ".parquet")


class TextTableSource:
    """A `grain` random-access data source: `source[n]` is a `Sample` without a picture; arguments as for `TableRows`.

    `source[n]` raises `BadSample` where a row is no JSON object, or names a picture.

    Raises:
      PeaError: the table cannot be read, or holds the pictures themselves.
    """

    def __init__(self, path: str, cache_dir: str | None = None):
        if path.endswith(".parquet") and (names := picture_columns(path)):
            raise PeaError(
                f"{path}: holds pictures ({', '.join(names)}), and of a table that is named by itself only the texts "
                "are used; write them as files beside a table with file_name, or take the column out"
            )
        self._rows = TableRows(path, cache_dir)

    @property
    def parts(self) -> list[Part]:
        return [self._rows.part]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Sample:
        number = range(len(self))[number]
        record = self._rows[number]
        if "file_name" in record:
            raise BadSample(
                f"{self._rows.where(number)}: names a picture, and of a table that is named by itself only the texts "
                "are used; name the folder that it lies in, or take file_name out"
            )
        return Sample(self._rows.file.path, f"row {number + 1}", None, record)

    def head(self, number: int) -> Sample:
        """The same."""
        return self[number]
