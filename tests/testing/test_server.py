"""What a server keeps of what it saw, how it reads, and how it ends."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time

import pytest

from chatpool.testing import Answer, Delay, Drip, Error, FakeServer, Stall


def test_a_request_is_kept_with_all_its_parts(make_server, connect):
    server = make_server()
    connection = connect(server)
    body = b'{"messages": [{"role": "user", "content": "hi"}]}'
    headers = {"Authorization": "Bearer sk-secret", "X-Two": "a"}
    connection.request("POST", "/v1/chat/completions?a=b", body=body, headers=headers)
    connection.getresponse().read()
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/v1/chat/completions?a=b")
    assert (request.path, request.query) == ("/v1/chat/completions", {"a": "b"})
    assert (request.raw, request.body["messages"][0]["content"], request.prompt) == (body, "hi", "hi")
    assert request.headers["AUTHORIZATION"] == "Bearer sk-secret"
    assert request.headers.get("x-three") is None
    assert (request.number, request.connection) == (0, 1)
    assert abs(time.monotonic() - request.time) < 60
    assert "sk-secret" not in repr(request) + repr(request.headers)


def test_header_fields_are_a_mapping_that_joins_what_is_repeated(make_server, open_socket):
    server = make_server()
    open_socket(server, b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAccept: a\r\nACCEPT: b\r\n\r\n")
    assert dict(server.wait_for(1)[0].headers) == {"host": "x", "accept": "a, b"}


def test_a_body_that_is_not_json_is_none(make_server, connect):
    server = make_server()
    connection = connect(server)
    connection.request("POST", "/v1/chat/completions", body=b"\xff{")
    assert connection.getresponse().status == 400
    assert server.requests[0].body is None
    assert server.requests[0].prompt == ""


def test_connections_are_kept_alive_and_counted(make_server, connect, on_connection):
    server = make_server()
    one, other = connect(server), connect(server)
    for prompt in ("a", "b"):
        on_connection(one, prompt)
    on_connection(other, "c")
    assert [request.connection for request in server.requests] == [1, 1, 2]
    assert (server.connections, server.open_connections) == (2, 2)
    one.close()
    server.wait_until(lambda: server.open_connections == 1)


def test_in_flight_is_what_is_not_answered(make_server, open_socket):
    server = make_server(Stall())
    sockets = [open_socket(server) for _ in range(3)]
    assert len(server.wait_for(3)) == 3
    assert (server.in_flight, server.max_in_flight) == (3, 3)
    for sock in sockets:
        sock.close()
    server.wait_until(lambda: server.in_flight == 0)
    assert server.max_in_flight == 3


def test_an_answer_that_has_arrived_is_no_longer_in_flight(make_server, connect, on_connection):
    server = make_server([Answer("x"), Drip(size=100, every=0.001), Error(503), Delay(0.001)] * 20)
    connection = connect(server)
    for _ in range(80):
        on_connection(connection)
        assert server.in_flight == 0
    assert server.max_in_flight == 1


def test_waiting_in_vain_says_what_was_seen(make_server, post):
    server = make_server()
    post(server)
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for 2 requests; so far 1 requests on 1 connections"):
        server.wait_for(2, timeout=0.01)


def test_a_request_may_come_in_chunks_and_byte_by_byte(make_server, open_socket):
    server = make_server()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b'5;x=y\r\n{"pro\r\n9\r\nmpt": "hi\r\n2\r\n"}\r\n0\r\nTrailer: x\r\n\r\n'
    sock = open_socket(server, b"")
    for position in range(len(head + chunks)):
        sock.sendall((head + chunks)[position : position + 1])
    (request,) = server.wait_for(1)
    assert request.body == {"prompt": "hi"}


def test_requests_may_come_before_the_answer_to_the_first(make_server, open_socket, read_all):
    one = b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    last = b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n"
    server = make_server(Delay(0.01))
    received = read_all(open_socket(server, one + one + last))
    assert received.count(b"HTTP/1.1 400 ") == 2
    assert received.count(b"HTTP/1.1 200 OK") == 1
    assert server.connections == 1


def test_a_next_request_does_not_end_a_wait(make_server, open_socket, read_all):
    one = b"GET /v1/models HTTP/1.1\r\n\r\n"
    server = make_server([Delay(0.1)])
    sock = open_socket(server, one)
    server.wait_for(1)
    sock.sendall(one[:-4] + b"\r\nConnection: close\r\n\r\n")
    assert read_all(sock).count(b"fake-model") == 2
    assert server.requests[1].time - server.requests[0].time >= 0.1


def test_a_reset_by_the_client_ends_a_wait(make_server, open_socket):
    server = make_server(Stall())
    sock = open_socket(server)
    server.wait_for(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    server.wait_until(lambda: server.in_flight == 0 and server.open_connections == 0)


def test_a_head_without_end_is_refused(make_server, open_socket, read_all):
    sock = open_socket(make_server(), b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 263_000)
    assert b"request head of more than" in read_all(sock)


def test_chunks_that_end_too_soon_are_refused(make_server, open_socket, read_all):
    sock = open_socket(make_server(), b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5")
    sock.shutdown(socket.SHUT_WR)
    assert b"inside a chunked body" in read_all(sock)


def test_a_body_is_asked_for_where_the_client_waits_for_that(make_server, open_socket):
    server = make_server()
    sock = open_socket(server, b"POST /v1/x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(b"{}")
    assert server.wait_for(1)[0].raw == b"{}"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01 TLS?\r\n\r\n",
        b"GET /v1/models\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_not_counted(make_server, open_socket, read_all, data):
    server = make_server()
    assert read_all(open_socket(server, data)).startswith(b"HTTP/1.1 400 Bad Request")
    assert server.requests == []


def test_half_a_request_is_refused(make_server, open_socket, read_all):
    server = make_server()
    for data in (b"GET /v1/mod", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"):
        sock = open_socket(server, data)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 400 Bad Request")


def test_a_request_on_its_way_through_a_proxy_is_known(make_server, connect):
    server = make_server()
    connection = connect(server)
    connection.request("GET", "http://example.invalid/v1/models")
    assert connection.getresponse().status == 200
    assert server.requests[0].path == "/v1/models"


def test_http_1_0_ends_with_the_answer(make_server, open_socket, read_all):
    assert b"fake-model" in read_all(open_socket(make_server(), b"GET /v1/models HTTP/1.0\r\n\r\n"))


def test_dropped_connections_are_replaced_by_new_ones(make_server, connect, on_connection):
    server = make_server()
    connection = connect(server)
    on_connection(connection)
    server.drop_connections()
    server.wait_until(lambda: server.open_connections == 0)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        on_connection(connection)
    connection.close()
    assert on_connection(connection).text == "ping"


@pytest.mark.parametrize("step", [Stall(), Delay(600), Drip(every=600), Stall(after=5)])
def test_closing_ends_every_wait_at_once(step, open_socket):
    started = time.monotonic()
    with FakeServer(step) as server:
        sockets = [open_socket(server) for _ in range(5)]
        server.wait_for(5)
        idle = open_socket(server, b"")
        server.wait_until(lambda: server.connections == 6)
    assert time.monotonic() - started < 5
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(f"FakeServer-{server.port}")]
    assert server.in_flight == server.open_connections == 0
    assert idle.recv(1) == b""
    assert len(sockets) == 5


def test_closing_ends_an_answer_that_nobody_reads(open_socket):
    with FakeServer(Answer(body=b"x" * 50_000_000)) as server:
        open_socket(server)
        server.wait_for(1)
        before = time.monotonic()
    assert time.monotonic() - before < 4


def test_a_closed_server_refuses_connections_and_can_be_closed_again(post):
    server = FakeServer()
    assert "0 requests, 0 in flight" in repr(server)
    server.close()
    server.close()
    assert "closed" in repr(server)
    with pytest.raises(ConnectionRefusedError):
        post(server)


def test_a_server_is_started_again_at_the_same_place(post):
    with FakeServer() as first:
        assert post(first).text == "ping"
    with FakeServer(port=first.port) as second:
        assert second.base_url == first.base_url
        assert post(second).text == "ping"


def test_many_threads_are_served_at_once(make_server, connect, on_connection):
    server = make_server(latency=0.01)
    threads, calls, wrong = 64, 5, []

    def work(name):
        connection = connect(server)
        for call in range(calls):
            prompt = f"{name} {call}"
            if on_connection(connection, prompt).text != prompt:
                wrong.append(prompt)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert wrong == []
    assert len(server.requests) == threads * calls
    assert server.connections == threads
    assert sorted(request.number for request in server.requests) == list(range(threads * calls))
    assert 1 < server.max_in_flight <= threads
