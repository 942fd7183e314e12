"""Connections between the processes of a run, in one process; tests/test_preemption.py kills one of two."""

import queue
import socket

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


def test_the_lost_one_is_named_to_all(three):
    held, first, second = three
    said = queue.Queue()
    Companions(held, said.put)
    Companions({0: second}, said.put)
    first.close()
    assert "process 1 of this run was lost" in said.get(timeout=5)
    assert "process 1 of this run was lost" in said.get(timeout=5)


def test_whoever_ends_in_order_is_not_lost(three):
    held, first, second = three
    said = queue.Queue()
    zero, other = Companions(held, said.put), Companions({0: second}, said.put)
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
