"""The server that the benchmarks call: Debian's nginx with its Lua module, on loopback, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Tuple

from .answer import ANSWER, END, EVENT, HEADERS, vectors
from .certificates import make_certificates
from .debian import binary, install, wait_until_up

__all__ = ["LATENCY", "Server", "config", "running", "version"]

LATENCY = 0.05
"""Seconds that the slow locations wait before they answer."""

_PACKAGES = ("nginx", "libnginx-mod-http-lua")
_MODULES = tuple(Path("/usr/lib/nginx/modules", name) for name in ("ndk_http_module.so", "ngx_http_lua_module.so"))

_CONFIG = """
{modules}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 100000000;
    keepalive_timeout 1h;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    lua_shared_dict seen 64m;
    init_by_lua_block {{
        local file = io.open("{folder}/answer.json")
        ANSWER = file:read("*a")
        file:close()
        file = io.open("{folder}/event.sse")
        EVENT = file:read("*a")
        file:close()
        file = io.open("{folder}/end.sse")
        END = file:read("*a")
        file:close()
        file = io.open("{folder}/vectors.json")
        VECTORS = file:read("*a")
        file:close()
        local ffi = require "ffi"
        ffi.cdef("struct moment {{ long seconds, nanoseconds; }}; int clock_gettime(int, struct moment *);")
        local moment = ffi.new("struct moment")
        -- On the clock of Python's time.monotonic().
        function monotonic()
            ffi.C.clock_gettime(1, moment)
            return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
        end
        math.randomseed(os.time())
        function refuse()
            ngx.status = 503
            ngx.header.content_length = 2
            ngx.print("{{}}")
        end
        function answer()
            ngx.header.content_length = #ANSWER
            ngx.print(ANSWER)
        end
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        listen 127.0.0.1:{tls_port} ssl backlog=4096;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        default_type application/json;
{headers}
        location /fast/ {{ content_by_lua_block {{
            ngx.req.read_body()
            answer()
        }} }}
        location /slow/ {{ content_by_lua_block {{
            ngx.req.read_body()
            ngx.sleep({latency})
            answer()
        }} }}
        # Each request whose prompt has a number divisible by 5 is refused the first time.
        location /fifth/ {{ content_by_lua_block {{
            ngx.req.read_body()
            local body = ngx.req.get_body_data() or ""
            ngx.sleep({latency})
            local number = tonumber(body:match("number (%d+)") or "1")
            if number % 5 == 0 and ngx.shared.seen:add(ngx.var.arg_run .. " " .. number, true) then
                return refuse()
            end
            answer()
        }} }}
        # A stream of n chunks, each sent by itself.
        location /stream/ {{ content_by_lua_block {{
            ngx.req.read_body()
            ngx.header.content_type = "text/event-stream"
            for _ = 1, tonumber(ngx.var.arg_n) do
                ngx.print(EVENT)
                ngx.flush(true)
            end
            ngx.print(END)
        }} }}
        # A stream of n chunks at a steady pace; the text of each is the moment at which it was sent.
        location /paced/ {{ content_by_lua_block {{
            ngx.req.read_body()
            ngx.header.content_type = "text/event-stream"
            local pause = tonumber(ngx.var.arg_pause)
            for _ = 1, tonumber(ngx.var.arg_n) do
                ngx.sleep(pause)
                ngx.print((EVENT:gsub(" word", string.format("%.6f", monotonic()), 1)))
                ngx.flush(true)
            end
            ngx.print(END)
        }} }}
        # A hundred vectors, whatever was asked for.
        location /vectors/ {{ content_by_lua_block {{
            ngx.req.read_body()
            ngx.header.content_length = #VECTORS
            ngx.print(VECTORS)
        }} }}
        # One request in five is refused, at random.
        location /random/ {{ content_by_lua_block {{
            ngx.req.read_body()
            ngx.sleep({latency})
            if math.random() < 0.2 then
                return refuse()
            end
            answer()
        }} }}
    }}
}}
"""


_FILES = {"answer.json": ANSWER, "event.sse": EVENT, "end.sse": END, "vectors.json": vectors()}


class Server(NamedTuple):
    """A running server."""

    port: int
    tls_port: int
    ca: str

    def base_url(self, location: str, *, tls: bool = False) -> str:
        """The API's root at ``location``: fast, slow, fifth, random, stream, paced or vectors."""
        return f"https://127.0.0.1:{self.tls_port}/{location}" if tls else f"http://127.0.0.1:{self.port}/{location}"


def config(folder: Path, port: int, tls_port: int) -> str:
    """nginx's configuration."""
    return _CONFIG.format(
        modules="\n".join(f"load_module {module};" for module in _MODULES),
        folder=folder,
        port=port,
        tls_port=tls_port,
        latency=LATENCY,
        headers="\n".join(f"        add_header {name} '{value}' always;" for name, value in HEADERS),
    )


def version() -> str:
    """Such as ``nginx/1.22.1``; installs it where it is missing."""
    _install()
    version_line = subprocess.run([binary("nginx"), "-v"], capture_output=True, text=True, check=True).stderr
    return version_line.strip().rsplit(" ", 1)[-1] + " (lua), one worker, on the same machine"


@contextmanager
def running() -> Iterator[Server]:
    """A server of one's own, ended with the block.

    Raises:
        RuntimeError: it is not there and cannot be installed, or does not start.
    """
    _install()
    folder = Path(tempfile.mkdtemp(prefix="chatpool-bench-"))
    try:
        port, tls_port = _free_ports()
        ca = make_certificates(folder)
        for name, text in _FILES.items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "nginx.conf").write_text(config(folder, port, tls_port), encoding="utf-8")
        process = _start(folder)
        try:
            wait_until_up(process, port, folder / "error.log")
            yield Server(port, tls_port, str(ca))
        finally:
            process.terminate()
            process.wait(10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path) -> subprocess.Popen[bytes]:
    unprivileged: Dict[str, Any] = {}
    if os.geteuid() == 0:
        unprivileged_user = pwd.getpwnam("nobody")
        for path in (folder, *folder.iterdir()):
            os.chown(path, unprivileged_user.pw_uid, unprivileged_user.pw_gid)
        folder.chmod(0o755)
        unprivileged = {"user": unprivileged_user.pw_uid, "group": unprivileged_user.pw_gid, "extra_groups": []}
    command = [binary("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    return subprocess.Popen(command, **unprivileged)


def _free_ports() -> Tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _install() -> None:
    if not Path(binary("nginx")).exists() or not all(module.exists() for module in _MODULES):
        install(_PACKAGES)
