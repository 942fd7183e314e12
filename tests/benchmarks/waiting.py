"""A side for the tests of `benchmarks.process`: remembers, fails, hangs or dies as it is told."""

import os
import time


class Side:
    def __init__(self, name: str):
        self.name, self.failures = name, 0

    def greet(self, who: str) -> str:
        return f"{self.name} greets {who} in {os.environ.get('SIDE_LANGUAGE')}"

    def fail(self, message: str) -> None:
        raise RuntimeError(message)

    def count(self) -> int:
        return self.failures

    def hang(self) -> None:
        time.sleep(60)

    def die(self) -> None:
        os._exit(3)

    def break_down(self) -> None:
        self.name = ""
        raise RuntimeError("out of memory")

    def recover(self) -> None:
        self.failures += 1
        if not self.name:
            raise ValueError("still no room")
