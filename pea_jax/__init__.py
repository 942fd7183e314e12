"""Adapters that let a frozen English text-to-image model understand prompts in another language."""

import os
import sys
from types import TracebackType

__version__ = "0.1.0"


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        return sys.__excepthook__(kind, error, trace)
    print("error: interrupted", file=sys.stderr, flush=True)
    os._exit(130)


# The imports of `python -m pea_jax.train` take seconds, in which Ctrl-C is to say no more than in `command.run`.
# Only then is argv so while this package is imported.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _end
