"""Networks without the values of their weights: shapes, dtypes and places, as compiling a step needs them."""

import contextlib
import contextvars
from collections.abc import Iterator

_LEFT_OUT = contextvars.ContextVar("values_left_out", default=False)


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Within, whatever loads a network reads its configs and tokenizers alone, and gives `jax.ShapeDtypeStruct`s.

    No file of weights need be there, and of a Hub model none is downloaded.
    """
    token = _LEFT_OUT.set(True)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


def values_left_out() -> bool:
    return _LEFT_OUT.get()
