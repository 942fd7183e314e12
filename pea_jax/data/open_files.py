"""How many files this process may hold open: ArrayRecord's readers keep each file that they have once read from."""

import contextlib
import resource

from pea_jax.errors import PeaError

_OTHERS = 128  # that the rest of a run may need


def allow(count: int, folder: str) -> None:
    """Let the process hold `count` more files open, those of `folder`; many systems begin with 1,024.

    Raises:
      PeaError: the system does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = soft + count if hard == resource.RLIM_INFINITY else min(soft + count, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS has a limit that it does not tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft < count + _OTHERS:
        raise PeaError(
            f"{folder}: its {count} files are held open while they are read, and this process may hold {soft} open; "
            "ask for more (ulimit -n, as root or in limits.conf), or divide the data"
        )
