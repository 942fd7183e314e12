"""Connections between the processes of a run, in one process; tests/test_preemption.py kills one of two."""

import queue
import socket
import time

import pytest

from pea_jax import companions
from pea_jax.companions import Companions


@pytest.fixture
def three():
    """What process 0 holds, and processes 1 and 2."""
    server, port = companions.listen()
    others = [companions.connect("localhost", port, number)[0] for number in (1, 2)]
    held = companions.accept(server, 3)
    assert held.keys() == {1, 2}
    yield held, *others
    for connection in (*held.values(), *others):
        connection.close()


def noting(said: queue.Queue):
    """Notes a reason where a process would print it and end, and tells it on."""
    return lambda reason, tell: said.put(reason) or tell()


def test_the_lost_one_is_named_to_all(three):
    held, first, second = three
    said = queue.Queue()
    Companions(0, held, noting(said))
    Companions(2, {0: second}, noting(said))
    first.close()
    assert "process 1 of this run was lost" in said.get(timeout=5)
    assert "process 1 of this run was lost" in said.get(timeout=5)


def test_process_0_fails_when_the_others_have_heard_of_it(three):
    """And gone; else JAX ends them, with words of its own."""
    held, first, second = three
    zero, said = Companions(0, held, noting(queue.Queue())), queue.Queue()

    def gone(reason: str, connection: socket.socket) -> None:
        time.sleep(0.2)
        said.put(reason)
        connection.shutdown(socket.SHUT_RDWR)

    Companions(1, {0: first}, lambda reason, _: gone(reason, first))
    Companions(2, {0: second}, lambda reason, _: gone(reason, second))
    zero.fail()
    assert said.qsize() == 2 and "process 0 of this run was lost" in said.get()


def test_nobody_is_waited_for_without_end(three, monkeypatch):
    monkeypatch.setattr(companions, "MOMENT", 0.1)
    held, *_ = three
    begin = time.monotonic()
    Companions(0, held, noting(queue.Queue())).fail()
    assert time.monotonic() - begin < 5


def test_whoever_ends_in_order_is_not_lost(three):
    held, first, second = three
    said = queue.Queue()
    zero, other = Companions(0, held, noting(said)), Companions(2, {0: second}, noting(said))
    first.sendall(companions.END)
    first.close()
    other.leave()
    zero.leave()
    second.close()
    with pytest.raises(queue.Empty):
        said.get(timeout=0.3)


def test_who_cannot_be_reached_is_said(capsys):
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    assert companions.connect("localhost", port, 3) == {}
    assert f"process 3: process 0 cannot be reached at localhost:{port} (" in capsys.readouterr().err


def test_whoever_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(companions, "SECONDS", 0.1)
    server, _ = companions.listen()
    assert companions.accept(server, 2) == {}
