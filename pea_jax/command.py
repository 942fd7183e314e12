"""What every command does around its own work: devices, one-line errors, exit codes."""

import logging
import os
import pathlib
import sys
from collections.abc import Callable

import jax
from absl import app, flags

from pea_jax.errors import PeaError


def run(main: Callable[[], None]) -> None:
    """Parse the flags and call `main`; what the user can mend ends as `error: ...` and exit code 1."""
    prepare_devices()
    try:
        _parse_flags(sys.argv)
        main()
    except PeaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def prepare_devices() -> None:
    """Make each CPU core a device, which splits a batch over them better than threads inside one operation do."""
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    logging.getLogger("absl").setLevel(logging.WARNING)


def _parse_flags(argv: list[str]) -> None:
    app.define_help_flags()
    _check_config_file(argv)
    try:
        rest = flags.FLAGS(argv)[1:]
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        # str() of a KeyError is the repr of its message
        message = error.args[0] if isinstance(error, KeyError) else str(error)
        raise PeaError(f"command line: {' '.join(str(message).split())}") from error
    if rest:
        raise PeaError(f"command line: {rest[0]!r} is not a flag; flags start with --")


def _check_config_file(argv: list[str]) -> None:
    """ml_collections answers a missing file with a traceback on the screen."""
    following = dict(zip(argv, argv[1:], strict=False))
    given = following.get("--config") or next(
        (a.removeprefix("--config=") for a in argv if a.startswith("--config=")), ""
    )
    path = pathlib.Path(given.split(":")[0])
    if given and not path.is_file():
        found = ", ".join(sorted(str(p) for p in path.parent.glob("*.py"))) or "none"
        raise PeaError(f"--config {path}: no such file (configurations in {path.parent}: {found})")
