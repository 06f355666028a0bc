"""A server that goes down when it is told to: nginx with its Lua module, on a port that it comes back to."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

from . import nginx
from .answer import ANSWER
from .debian import binary, quiet_port

__all__ = ["KINDS", "Patient", "config", "running"]

KINDS = ("503", "503 with Retry-After: 2", "connections refused", "hanging")
"""The ways to be down."""

_CONFIG = """
{modules}
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 8192; }}
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
    lua_shared_dict health 64k;
    lua_check_client_abort on;
    init_by_lua_block {{
        local file = io.open("{folder}/answer.json")
        ANSWER = file:read("*a")
        file:close()
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        default_type application/json;
        location /health/ {{ content_by_lua_block {{
            ngx.shared.health:set("state", ngx.var.arg_state)
            ngx.print("{{}}")
        }} }}
        location /v1/ {{ content_by_lua_block {{
            ngx.req.read_body()
            local state = ngx.shared.health:get("state") or "up"
            if state == "hanging" then
                ngx.sleep(3600)
            end
            ngx.sleep({latency})
            local body = ANSWER
            if state ~= "up" then
                ngx.status = 503
                if state == "hinting" then
                    ngx.header.retry_after = 2
                end
                body = "{{}}"
            end
            ngx.header.content_length = #body
            ngx.print(body)
        }} }}
    }}
}}
"""

_STATES = {"503": "refusing", "503 with Retry-After: 2": "hinting", "hanging": "hanging"}


class Patient:
    """One server, whose health is in the caller's hands."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = quiet_port()
        self._process: Optional[subprocess.Popen[bytes]] = None
        self.base_url = f"http://127.0.0.1:{self._port}/v1"
        (folder / "answer.json").write_text(ANSWER, encoding="utf-8")
        (folder / "nginx.conf").write_text(config(folder, self._port), encoding="utf-8")

    def fall(self, kind: str) -> None:
        """Be down, in one of :data:`KINDS`."""
        if kind == "connections refused":
            self.stop()
        else:
            self._tell(_STATES[kind])

    def rise(self) -> None:
        """Be up; what hangs goes on hanging."""
        if self._process is None:
            self.start()
        else:
            self._tell("up")

    def start(self) -> None:
        """Listen, and answer.

        Raises:
            RuntimeError: nginx does not start.
        """
        log = self._folder / "error.log"
        self._process = subprocess.Popen(
            [binary("nginx"), "-p", str(self._folder), "-e", str(log), "-c", str(self._folder / "nginx.conf")]
        )
        end = time.monotonic() + 10
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"nginx does not start: {log.read_text()[-2000:] if log.exists() else ''}")
            time.sleep(0.005)

    def stop(self) -> None:
        """Close the port and every connection."""
        if self._process is not None:
            self._process.kill()  # at once: what it was answering is lost as it is when a machine dies
            self._process.wait(10)
            self._process = None

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True

    def _tell(self, state: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        connection.request("GET", f"/health/?state={state}")
        connection.getresponse().read()
        connection.close()


def config(folder: Path, port: int) -> str:
    """nginx's configuration."""
    modules = "\n".join(line for line in nginx.config(folder, 0, 0).splitlines() if line.startswith("load_module"))
    return _CONFIG.format(modules=modules, folder=folder, port=port, latency=nginx.LATENCY)


@contextmanager
def running() -> Iterator[Patient]:
    """A server of one's own, up, and ended with the block.

    Raises:
        RuntimeError: nginx is not there and cannot be installed, or does not start.
    """
    nginx.version()
    folder = Path(tempfile.mkdtemp(prefix="chatpool-bench-"))
    patient = Patient(folder)
    try:
        patient.start()
        yield patient
    finally:
        patient.stop()
        shutil.rmtree(folder, ignore_errors=True)
