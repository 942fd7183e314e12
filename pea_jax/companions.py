"""Processes of one run that end together: when one is lost the others say so and end, at once.

JAX by itself ends them by an abort with a stack trace, when there has been no sign of life for 100 seconds. Here each
process holds a connection to process 0, which the system closes when a process is gone; a machine that is gone answers
no more. Whoever ends in order says so before; so does whoever fails, and waits until the others have gone: when
process 0 is not there JAX ends them with a page of text, as soon as it notices.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

END = b"."
KEEPALIVE = dict(TCP_KEEPIDLE=20, TCP_KEEPINTVL=5, TCP_KEEPCNT=4)  # 40 seconds without an answer
SECONDS = 30  # to connect; all processes are running already
MOMENT = 3  # seconds in which the others end who are told to
_last_words = threading.Lock()


def end(message: str, tell: Callable[[], object] = lambda: None) -> NoReturn:
    """Print an error, `tell` others and end, without waiting for threads; of several calls the first counts."""
    _last_words.acquire()  # and never given back
    print("error:", *message.splitlines(), file=sys.stderr, flush=True)
    sys.stdout.flush()
    tell()
    os._exit(1)


def own_address() -> str:
    """A name of this machine that others can use."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        address = socket.gethostbyname(name)
        return name if address.startswith("127.") else address
    return name


def listen() -> tuple[socket.socket, int]:
    """A socket of process 0, and its port."""
    if socket.has_dualstack_ipv6():
        server = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        server = socket.create_server(("", 0))
    return server, server.getsockname()[1]


def accept(server: socket.socket, count: int) -> dict[int, socket.socket]:
    """The connections of the `count - 1` other processes, by their numbers; as many as come in time."""
    connections: dict[int, socket.socket] = {}
    deadline = time.monotonic() + SECONDS
    with server, contextlib.suppress(TimeoutError):
        while len(connections) < count - 1:
            server.settimeout(max(0.001, deadline - time.monotonic()))
            connection, _ = server.accept()
            connection.settimeout(1)
            with contextlib.suppress(OSError):
                connections[int.from_bytes(connection.recv(4))] = connection
    return connections


def connect(host: str, port: int, number: int) -> dict[int, socket.socket]:
    """The connection to process 0 of process `number`; none if it cannot be reached."""
    try:
        connection = socket.create_connection((host, port), timeout=SECONDS)
        connection.sendall(number.to_bytes(4))
    except OSError as error:
        print(
            f"process {number}: process 0 cannot be reached at {host}:{port} ({error.strerror or error}); that another "
            "is lost will be noticed after 100 seconds only",
            file=sys.stderr,
        )
        return {}
    return {0: connection}


class Companions:
    """Ends this process when another is lost, until `leave` is called.

    Args:
      number: of this process.
      connections: to process 0, or from process 0 to each of the others.
      end: is given the reason, and what tells it to the others.
    """

    def __init__(
        self,
        number: int,
        connections: Mapping[int, socket.socket],
        end: Callable[[str, Callable[[], object]], object] = end,
    ):
        self._number, self._connections, self._end, self._left = number, connections, end, False
        self._threads = []
        for other, connection in connections.items():
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEPALIVE.items():
                if hasattr(socket, name):  # not on every system
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            self._threads.append(threading.Thread(target=self._wait, args=(other, connection), daemon=True))
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """Say that this process ends in order."""
        self._left = True
        self._say(END)

    def fail(self) -> None:
        """Say that this process fails, and give those who hear it the time to end."""
        self._lose(self._number)

    def _wait(self, number: int, connection: socket.socket) -> None:
        said = b""
        with contextlib.suppress(OSError):
            said = connection.recv(4)
        if said == END or self._left:
            return
        lost = int.from_bytes(said) if said else number
        reason = f"process {lost} of this run was lost, or failed: see what it said; start all again to go on"
        self._end(reason, lambda: self._lose(lost))

    def _lose(self, number: int) -> None:
        self._left = True
        self._say(number.to_bytes(4))
        deadline = time.monotonic() + MOMENT
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0, deadline - time.monotonic()))

    def _say(self, what: bytes) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(what)
