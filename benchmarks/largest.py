"""The largest batch that a side can train on, found in a few trials."""

from collections.abc import Callable

MARGIN = 0.97  # of the memory, for what fragments of it are lost
STEP = 0.92  # to the next guess, downwards; upwards its inverse


def largest(
    attempt: Callable[[int], int | None], *, rows: int, peak: float, fixed: float, capacity: float, trials: int
) -> tuple[int, int | None]:
    """The largest batch that fitted, and the smallest that did not, None if every one did.

    Memory is taken to grow by the same amount with every row, which the trials then correct.

    Args:
      attempt: bytes that a batch of so many rows takes, or None where they are more than there are.
      rows, peak: a batch that fits, and its bytes.
      fixed: bytes of the parameters, there whatever the batch.
      capacity: bytes that there are.
      trials: how often `attempt` may be called.
    """
    best, failed = rows, None
    guess = int(rows * (MARGIN * capacity - fixed) / (peak - fixed))
    for _ in range(trials):
        guess = min(guess, failed - 1) if failed else guess
        if guess <= best:
            break
        if attempt(guess) is None:
            failed, guess = guess, int(guess * STEP)
        else:
            best, guess = guess, max(guess + 1, int(guess / STEP))
    return best, failed
