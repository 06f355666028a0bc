"""A server on loopback whose every byte is scripted, for faults that no HTTP server would produce."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

DRIP = 0.02  # seconds between two bytes: well below every time limit of the tests


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock, server):
        self.sock = self.carrier = sock
        self.server = server
        self._lock = threading.Lock()
        self.received = b""

    def read(self):
        """What comes next, b"" at the end."""
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        self.received += data
        return data

    def read_request(self):
        """Head and body of the next request, None at the end of the connection."""
        buffer = b""
        while b"\r\n\r\n" not in buffer:
            data = self.read()
            if not data:
                return None
            buffer += data
        head, _, body = buffer.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
        while len(body) < length:
            data = self.read()
            if not data:
                return None
            body += data
        return head, body

    def send(self, data):
        """Send; False when the client has gone."""
        try:
            self.sock.sendall(data)
        except OSError:
            return False
        return True

    def answer(self, body, *, status="200 OK", headers=()):
        """A complete answer."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        return self.send("\r\n".join(lines).encode() + body)

    def drip(self, data, piece=1):
        """Send ``data`` slowly, again and again, until the client has gone or the test is over."""
        while not self.server.over.is_set():
            for start in range(0, len(data), piece):
                if not self.send(data[start : start + piece]) or self.server.over.wait(DRIP):
                    return

    def hang(self):
        """Do nothing until the test is over."""
        self.server.over.wait()

    def start_tls(self, context):
        """Become the server's end of a TLS connection."""
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock = TLSInside(self.sock, context)
        else:
            # The handshake by itself: shut_down() needs the socket meanwhile.
            self.sock = self.carrier = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
            self.sock.do_handshake()

    def reset(self):
        """Close with a RST instead of a FIN."""
        self.carrier.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def shut_down(self):
        """Wake the peer's thread, which closes the socket; may be called by any thread."""
        with self._lock, contextlib.suppress(OSError):
            socket.socket.shutdown(self.carrier, socket.SHUT_RDWR)

    def close(self):
        """Close the socket; only the peer's thread may: another one's would free the descriptor under its feet."""
        with self._lock:
            self.carrier.close()


class TLSInside:
    """The server's end of a TLS connection inside another one, which the ssl module cannot wrap."""

    def __init__(self, carrier, context):
        self.carrier = carrier
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self._run(self.tls.do_handshake)

    def recv(self, size):
        return self._run(self.tls.read, size)

    def sendall(self, data):
        self._run(self.tls.write, data)

    def _run(self, operation, *args):
        while True:
            try:
                result = operation(*args)
            except ssl.SSLWantReadError:
                self.carrier.sendall(self.outgoing.read())
                data = self.carrier.recv(65536)
                if not data:
                    raise OSError("the client has gone") from None
                self.incoming.write(data)
            else:
                self.carrier.sendall(self.outgoing.read())
                return result


class ScriptedServer:
    """Runs ``script(peer)`` for each connection, in a thread of its own.

    Args:
        script: what to do with a connection; it is closed at the end.
        context: an ssl context, for TLS from the first byte.
    """

    def __init__(self, script, context=None):
        self.script = script
        self.context = context
        self.over = threading.Event()
        self.peers = []
        self.arrived = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.scheme = "http" if context is None else "https"
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def wait_for_connections(self, count):
        """Until ``count`` connections have come."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.peers) >= count, 60)

    def close(self):
        self.over.set()
        # Closing alone does not wake accept() up.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(60)
        for peer in self.peers:
            peer.shut_down()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock, self)
            with self.arrived:
                self.peers.append(peer)
                self.arrived.notify_all()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        # A client that gives up in the middle is what these tests are about.
        with contextlib.suppress(OSError, ssl.SSLError, ValueError):
            if self.context is not None:
                peer.start_tls(self.context)
            self.script(peer)
        peer.close()


class FullListener:
    """A port whose connections hang: its queue is full, and nobody accepts."""

    def __init__(self, address="127.0.0.1"):
        self.listener = socket.socket()
        self.listener.bind((address, 0))
        self.listener.listen(0)
        self.address = self.listener.getsockname()
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.address)
            self.fillers.append(filler)

    def close(self):
        for sock in (*self.fillers, self.listener):
            sock.close()
