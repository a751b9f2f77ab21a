"""HTTP to a container, and what may go wrong with it."""

import socket
import time
from contextlib import closing
from io import BytesIO

import pytest

from orchestrator.local.jobs.client import Client, NoAnswerError, TooLargeError
from tests.local.jobs.conftest import Serve

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


def test_answer_that_drips_ends_in_time(serve: Serve) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        for _ in range(100):
            time.sleep(0.1)
            connection.sendall(b"x")

    client = serve(drip)
    began = time.monotonic()
    with pytest.raises(NoAnswerError) as caught:
        client.request("GET", "/", timeout=0.2)
    assert caught.value.timed_out
    assert time.monotonic() - began < 5


def test_answer_that_breaks_off_is_none(serve: Serve) -> None:
    def break_off(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"half")
        connection.shutdown(socket.SHUT_RDWR)

    client = serve(break_off)
    with pytest.raises(NoAnswerError) as caught:
        client.request("GET", "/", timeout=5)
    assert (caught.value.timed_out, caught.value.was_sent) == (False, True)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_connection_serves_many_requests(serve: Serve) -> None:
    ports = set()

    def answer(connection: socket.socket) -> None:
        ports.add(connection.getpeername()[1])
        connection.sendall(HEAD + b"x" * 100)

    client = serve(answer)
    for _ in range(3):
        client.request("GET", "/", timeout=5)
    assert len(ports) == 1


def test_chunked_answer_is_put_together(serve: Serve) -> None:
    client = serve(lambda connection: connection.sendall(CHUNKED + b"3\r\none\r\n4\r\n two\r\n0\r\n\r\n"))
    for _ in range(2):  # the connection is fit for another
        body = BytesIO()
        client.request("GET", "/", timeout=5, into=body)
        assert body.getvalue() == b"one two"


def test_chunked_answer_that_breaks_off_is_none(serve: Serve) -> None:
    def break_off(connection: socket.socket) -> None:
        connection.sendall(CHUNKED + b"3\r\none\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    with pytest.raises(NoAnswerError):
        serve(break_off).request("GET", "/", timeout=5)


def test_refused_connection_has_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with closing(Client(address)) as client, pytest.raises(NoAnswerError) as caught:
        client.request("GET", "/", timeout=5)
    assert not caught.value.was_sent


def test_client_that_was_closed_has_sent_nothing(serve: Serve) -> None:
    client = serve(lambda connection: connection.sendall(HEAD + b"x" * 100))
    client.close()
    with pytest.raises(NoAnswerError) as caught:
        client.request("GET", "/", timeout=5)
    assert not caught.value.was_sent


def test_connection_is_not_used_again_after_too_large_an_answer(serve: Serve) -> None:
    ports = set()

    def answer(connection: socket.socket) -> None:
        ports.add(connection.getpeername()[1])
        connection.sendall(HEAD + b"x" * 50)
        time.sleep(0.1)
        connection.sendall(b"x" * 50)

    client = serve(answer)
    with pytest.raises(TooLargeError, match="more than 10 bytes"):
        client.request("GET", "/", timeout=5, most=10)
    assert client.request("GET", "/", timeout=5).status == 200
    assert len(ports) == 2
