"""Choosing server."""

import socket

import pytest

from deploy.errors import StackError
from deploy.processes import server


def test_different_and_below_the_ephemeral_range() -> None:
    found = server.free_ports(20)
    assert len(set(found)) == 20
    assert set(found) <= set(server.RANGE)


def test_nothing_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RANGE", range(20000, 20003))
    monkeypatch.setattr(server, "is_free", lambda port: port == 20001)
    assert server.free_ports(1) == [20001]
    with pytest.raises(StackError):
        server.free_ports(2)


def test_keeps_what_is_free_and_replaces_what_is_taken() -> None:
    with socket.socket() as other:
        other.bind((server.LOOPBACK, server.free_ports(1)[0]))
        other.listen()
        taken = other.getsockname()[1]
        (free,) = server.free_ports(1)

        chosen = server.keep_or_choose({"a": taken, "b": free, "c": None})

        assert server.accepts_connections(taken)
    assert chosen["b"] == free
    assert taken not in chosen.values()
    assert len(set(chosen.values())) == 3


def test_nobody_answers() -> None:
    assert not server.accepts_connections(server.free_ports(1)[0])
