"""What every command does around its own work: devices, flags, places to write to, one-line errors, exit codes."""

import contextlib
import errno
import gc
import logging
import os
import pathlib
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import jax
from absl import app, flags

from pea_jax import chips, companions, processes
from pea_jax.data.kept_files import default_folder
from pea_jax.data.storage import is_remote
from pea_jax.data.webdataset import check_quoted
from pea_jax.errors import PeaError, Stalled
from pea_jax.preemption import Interrupted, interrupt
from pea_jax.report import console, spare_letters
from pea_jax.whole_files import PARTIAL, whole

COORDINATOR = flags.DEFINE_string(
    "coordinator", os.environ.get("JAX_COORDINATOR_ADDRESS"), "HOST:PORT of process 0, where several are one run"
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", os.environ.get("JAX_NUM_PROCESSES"), "How many they are")
PROCESS_ID = flags.DEFINE_integer("process_id", os.environ.get("JAX_PROCESS_ID"), "Which this is, from 0")
TERMINATED_CODE = flags.DEFINE_integer(
    "terminated_code", 0, "Exit code after SIGTERM; another than 0 makes a cluster start the run again"
)
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Find the processes of the run as the cluster names them")
_LESS_AT_A_TIME = (
    "ask for less at a time (train: --config.num_microbatches, or --config.sample.count before the first step; "
    "generate: --batch_size; evaluate: --config.evaluation.batch_size)"
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)  # of a path that the user has named


def run(main: Callable[[], None]) -> None:
    """Parse the flags and call `main`; what the user can mend ends as `error: ...` and exit code 1.

    A run that was asked to end ends with one line and exit code 130 after Ctrl-C, `--terminated_code` after SIGTERM.
    """
    prepare_devices()
    _hush_orbax()
    spare_letters()
    gc.freeze()  # what was imported stays: to look through all of it takes the collector a tenth of a second each time
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
            signal.signal(signal.SIGINT, interrupt)
        _parse_flags(sys.argv)
        processes.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, detect=DISTRIBUTED.value)
        console.quiet = not processes.is_first()
        main()
        processes.wait_for_all("the end")  # who is done long before the others would end them, and be ended with them
        processes.leave()
    except PeaError as error:
        _end_with(error)
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        if "RESOURCE_EXHAUSTED" in reason:
            _end_with(PeaError(f"not enough memory ({reason}); {_LESS_AT_A_TIME}"))
        if not processes.several():
            raise
        _end_with(PeaError(f"another process of the run was lost, or fails ({reason}); start all again"))
    except OSError as error:
        if error.errno in _FORBIDDEN and error.filename is not None:
            _end_with(PeaError(f"{error.filename}: {error.strerror}; name another place"))
        if error.errno not in _FULL:
            raise
        _end_with(PeaError(f"{error.filename or 'the screen or a file'}: {error.strerror}; make room there"))
    except Interrupted as stop:
        print(stop, flush=True)
        code = stop.code or TERMINATED_CODE.value
        if stop.alone:
            _leave_the_others(code)
        processes.leave()
        sys.exit(code)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr, flush=True)
        _leave_the_others(130)
        sys.exit(130)


def _leave_the_others(code: int) -> None:
    """Of several processes: `sys.exit` waits for the others, which end when this one is gone."""
    if processes.several():
        processes.fail()
        os._exit(code)


def _end_with(error: PeaError) -> NoReturn:
    if isinstance(error, Stalled) or processes.several():
        companions.end(str(error), processes.fail)  # `sys.exit` waits for all threads, and for the other processes
    print("error:", *str(error).splitlines(), file=sys.stderr)
    sys.exit(1)


def prepare_devices() -> None:
    """What is set before JAX is used, unless the environment says otherwise.

    Each CPU core that it may use is a device, which splits a batch over them better than threads inside one operation
    do (JAX_NUM_CPU_DEVICES). Compiled programs are kept in the user's cache folder (JAX_COMPILATION_CACHE_DIR).
    """
    chips.answer_libtpu()
    if jax.config.values["jax_num_cpu_devices"] < 0:
        jax.config.update("jax_num_cpu_devices", _cores())
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", f"{default_folder()}/xla")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    logging.getLogger("absl").setLevel(logging.WARNING)


def _cores() -> int:
    """Those that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_folder(flag: str, path: pathlib.Path) -> None:
    """Refuse a folder to write in that is in a remote store, or cannot be made or written in; nothing is made yet.

    Raises:
      PeaError: naming the flag and what is in the way.
    """
    _try_to_write(flag, path, path)


def check_file(flag: str, path: pathlib.Path) -> None:
    """As `check_folder`, for a file to write."""
    if os.path.isdir(path):  # which is no error where nobody may look
        raise PeaError(f"{flag} {path}: is a folder; name a file in it")
    _try_to_write(flag, path, path.parent)


def _try_to_write(flag: str, path: pathlib.Path, folder: pathlib.Path) -> None:
    if is_remote(address := str(path).replace(":/", "://", 1)):  # pathlib leaves one / of gs://
        raise PeaError(
            f"{flag} {address}: only training data are read from a remote store, and nothing is written there; "
            "name a folder on a disk, or the one where the store is mounted"
        )
    if path.parts[:1] == ("~",):
        raise PeaError(
            f"{flag}={path}: the shell reads ~ only at the start of a word; write {flag} {path}, with a space"
        )
    absolute = folder.absolute()
    nearest = next(place for place in (absolute, *absolute.parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=nearest), contextlib.suppress(FileNotFoundError):
            os.lstat(path.with_name(path.name + PARTIAL) if path.name else path)  # its name may be too long
    except OSError as error:
        raise PeaError(f"{flag} {path}: cannot be written ({nearest}: {error.strerror}); {_advice(error)}") from error


def whole_numbers(flag: str, given: Sequence[str], most: int) -> list[int]:
    """The numbers of a flag that takes several, each once.

    Raises:
      PeaError: there are none, or one is not a whole number from 0 to `most`.
    """
    if not given or not all(text.strip().isdecimal() and int(text) <= most for text in given):
        raise PeaError(f"{flag} {','.join(given)}: must be whole numbers from 0 to {most}, with commas between")
    return list(dict.fromkeys(map(int, given)))


def _advice(error: OSError) -> str:
    return "make room there, or name another place" if error.errno in _FULL else "name another place"


@contextlib.contextmanager
def whole_file(flag: str, path: pathlib.Path) -> Iterator[pathlib.Path]:
    """As `whole`, of a path that a flag names.

    Raises:
      PeaError: it cannot be written.
    """
    try:
        with whole(path) as partial:
            yield partial
    except OSError as error:
        raise PeaError(f"{flag} {path}: cannot be written ({error.strerror}); {_advice(error)}") from error


def _parse_flags(argv: list[str]) -> None:
    app.define_help_flags()
    _check_config_file(argv)
    check_quoted(argv, [f"--config.data.{name}" for name in ("train", "english", "validation")])
    try:
        rest = flags.FLAGS(argv)[1:]
    except (flags.Error, AttributeError, KeyError, OSError, SyntaxError, TypeError, ValueError) as error:
        raise PeaError(f"command line: {_message(error)}") from error
    if rest:
        raise PeaError(f"command line: {rest[0]!r} is not a flag; flags start with --")


def _message(error: BaseException) -> str:
    """One line; ml_collections wraps a misspelt field and its nearest neighbour in two exceptions."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    if not text.startswith("'"):
        return " ".join(text.split())
    field, *advice = text.splitlines()
    return f"the config has no field {field}; {' '.join(advice) or 'pea_jax/config.py lists them all'}"


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


def _hush_orbax() -> None:
    """Let a checkpoint that cannot be read end in one error.

    Orbax reads its arrays at once: when one fails, the others are left to fail by themselves, each with a traceback or
    a warning from a background thread or the garbage collector.
    """
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    warnings.filterwarnings("ignore", r"coroutine .* was never awaited", RuntimeWarning)
    show = sys.unraisablehook

    def show_others(unraisable: "sys.UnraisableHookArgs") -> None:
        abandoned = type(unraisable.object).__name__ == "coroutine"
        if not abandoned and str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = show_others
