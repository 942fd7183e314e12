"""Compiles one program in a process of its own, which ends as soon as the program's memory is known.

The compiler for TPUs cannot be stopped in another way, and what it does after that takes most of its time.
"""

import json
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from ml_collections import ConfigDict

from pea_jax.data.buckets import Size
from pea_jax.distill.footprint import Compiled, TooLarge
from pea_jax.errors import PeaError


def compile_apart(config: ConfigDict, topology: str, bucket: Size, batch: int) -> Compiled:
    """As `footprint.compile_step` of the run of a config on a TPU slice that is not there.

    Raises:
      TooLarge: it does not fit.
      PeaError: the process found something wrong, or was ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        task = config.to_json(), topology, bucket, batch, folder
        work = context.Process(target=_work, args=(theirs, *task), daemon=True)
        # Else the compiler would go on alone, and libtpu, which takes the signal when it is loaded, print a page.
        before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        work.start()
        theirs.close()
        try:
            result = ours.recv()
        except EOFError:
            work.join()
            reason = "for lack of memory, perhaps" if work.exitcode == -9 else f"with code {work.exitcode}"
            advice = "see what it printed"
            raise PeaError(f"--topology {topology}: the compiler's process ended {reason}; {advice}") from None
        finally:
            work.kill()
            work.join()
            signal.signal(signal.SIGTERM, before)
    if isinstance(result, Exception):
        raise result
    return result


def _work(connection: Connection, fields: str, topology: str, bucket: Size, batch: int, folder: str) -> NoReturn:
    from pea_jax.distill import planning

    result: Any
    try:
        config = ConfigDict(json.loads(fields))
        (one,) = planning.slices(config, [topology])
        result = planning.compiler_of(config, one, pathlib.Path(folder))(bucket, batch)
    except (PeaError, TooLarge) as error:
        result = error
    connection.send(result)
    connection.close()
    os._exit(0)
