"""The largest batch that a side can train on, found in a few trials."""

from pea_jax.distill.footprint import on_the_line

MARGIN = 0.97  # of the memory, for what fragments of it are lost
STEP = 0.92  # from a batch that did not fit to the next guess
CLOSE = 32  # of a batch, what the largest may be short of the smallest that did not fit


class Search:
    """What to try next, from what is known.

    Args:
      sizes: bytes that batches of so many rows take, as planned or measured; of none at least, the parameters alone.
      capacity: bytes that there are.
      multiple: of what a batch must be one: the number of devices that share it.

    Attributes:
      best: the largest batch that fitted, 0 if none did yet.
      failed: the smallest that did not, None if every one did.
    """

    def __init__(self, sizes: dict[int, float], capacity: float, multiple: int = 1):
        self.sizes, self._capacity, self._multiple = dict(sizes), capacity, multiple
        self.best = 0
        self.failed: int | None = None

    def first(self, rows: int) -> int:
        """The largest batch that was planned to fit; `rows` where nothing was planned."""
        return max((count for count, size in self.sizes.items() if count and self._fits(size)), default=rows)

    def measured(self, rows: int, size: float) -> None:
        """A batch ran, and took so many bytes."""
        self.sizes[rows] = size
        if size <= self._capacity:
            self.best = max(self.best, rows)
        else:
            self.too_large(rows)

    def too_large(self, rows: int) -> None:
        """There was not memory enough, however much it would have taken."""
        self.failed = min(rows, self.failed or rows)

    def guess(self) -> int | None:
        """What to try next, by the line through the two known batches nearest to the limit; None when it is close."""
        if len(self.sizes) < 2:
            return None
        if self.failed is None:
            lines = (self._whole(on_the_line(self.sizes, share * self._capacity)) for share in (MARGIN, 1.0))
            return next((line for line in lines if line > self.best), None)
        if self.failed - self.best <= max(self._multiple, self.best // CLOSE):
            return None
        # Where memory was short by fragments, it would be again with one row less.
        line = on_the_line(self.sizes, MARGIN * self._capacity)
        return max(self.best + self._multiple, self._whole(min(line, int(STEP * self.failed))))

    def _whole(self, rows: int) -> int:
        return rows - rows % self._multiple

    def _fits(self, size: float) -> bool:
        return size <= MARGIN * self._capacity
