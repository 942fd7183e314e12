"""The iterator of a run's batches: its place is saved with the checkpoint, and it never waits for ever."""

import asyncio
import concurrent.futures
import json
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from pea_jax.errors import PeaError, Stalled

_PLACE = "place.json"


class Batches(Iterator[dict[str, Any]]):
    """Batches of a `make_loader`, without the fields "row" and "skipped".

    `rows` are those of the last batch, `skipped` counts the bad samples of all batches so far. The state is the same on
    all hosts but for that count, and any number of hosts goes on from it; orbax calls `save` and `load`.

    Args:
      loader: of `make_loader`.
      timeout: seconds that one batch may take.
      saves: whether this process writes the state; one of all the hosts does.
      samples: by which the data are known again, part of the state; a place in other data means nothing.
    """

    def __init__(self, loader: grain.IterDataset, *, timeout: float = 600, saves: bool = True, samples: str = ""):
        self._batches = iter(loader)
        self._timeout, self._saves, self._samples = timeout, saves, samples
        self._waiting = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="next-batch")
        self.rows = np.empty(0, np.int64)
        self.skipped = 0

    def __next__(self) -> dict[str, Any]:
        """The next batch.

        Raises:
          Stalled: it takes too long.
          PeaError: a sample cannot be read, or too many of them are bad, or a thread that reads has ended.
        """
        try:
            batch = dict(self._waiting.submit(next, self._batches).result(self._timeout))
        except TimeoutError as error:
            raise Stalled(
                f"no batch within config.data.timeout={self._timeout:g} seconds: reading hangs; look at the storage "
                "that the shards lie on, or allow more time"
            ) from error
        except (SystemExit, KeyboardInterrupt, concurrent.futures.CancelledError) as error:
            raise PeaError(f"a thread that reads samples has ended ({type(error).__name__}); start again") from error
        self.rows = batch.pop("row")
        self.skipped += int(batch.pop("skipped").sum())
        return batch

    def close(self) -> None:
        """Give up what is being read ahead, so that the process can end."""
        self._waiting.shutdown(wait=False, cancel_futures=True)
        self._batches.close()

    def get_state(self) -> dict[str, Any]:
        return {**self._batches.get_state(), "skipped": self.skipped, "samples": self._samples}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on at the place of `get_state`.

        Raises:
          PeaError: it is one in other data.
        """
        place = dict(state)
        if place.pop("samples", self._samples) != self._samples:
            raise PeaError(
                "the samples of config.data.train are not those that the run began with; put them back, or use a new "
                "--workdir"
            )
        self.skipped = place.pop("skipped")
        self._batches.set_state(place)

    async def save(self, directory: Any) -> Any:
        """Takes the state now; what is returned writes it."""
        return self._write(directory, json.dumps(self.get_state()))

    async def load(self, directory: Any) -> Any:
        return self._read(directory)

    async def _write(self, directory: Any, state: str) -> None:
        folder = await directory.await_creation()
        if self._saves:
            await asyncio.to_thread((folder / _PLACE).write_text, state)

    async def _read(self, directory: Any) -> None:
        self.set_state(json.loads(await asyncio.to_thread((directory / _PLACE).read_text)))
