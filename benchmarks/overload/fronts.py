"""Servers in front of a model, with the settings that their manuals show: nginx, haproxy, a gateway.

Each runs on loopback ports in a folder of its own, in front of a :mod:`.model_server`.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, Mapping, NamedTuple, Sequence, Union

from ..debian import binary, quiet_port, wait_until_up
from ..store import HERE
from .model_server import Entry

__all__ = ["FRONTS", "LATENCY", "Gateway", "Haproxy", "Nginx", "Running", "config", "running"]

LATENCY = 0.2
"""Seconds that the model takes for an answer."""

_PATH = "/v1"
_REFUSALS = (429, 503)
_NO_STATUS = -1  # haproxy's, of a caller that has hung up
_LAST = 204  # the answer to /last


class Nginx(NamedTuple):
    """nginx with a limiter.

    Attributes:
        zone: the limiter's directive of the ``http`` block.
        limit: its directives of the ``location``.
    """

    zone: str
    limit: str


class Haproxy(NamedTuple):
    """haproxy with a limit.

    Attributes:
        frontend: lines of the frontend.
        server: options of the server's line.
    """

    frontend: str = ""
    server: str = ""


class Gateway(NamedTuple):
    """A server without any limit that refuses a share of all calls with 429, whatever their pace.

    Attributes:
        share: which part.
        hint: the header of a refusal; empty for none.
    """

    share: float
    hint: str = ""


Front = Union[Nginx, Haproxy, Gateway]

_RATE = Nginx("limit_req_zone $server_name zone=calls:1m rate=5r/s;", "limit_req zone=calls burst=2;")
_PLACES = Nginx("limit_conn_zone $server_name zone=places:1m;", "limit_conn places 3;")
_TABLE = """stick-table type ip size 100k expire 30s store http_req_rate(2s)
    http-request track-sc0 src
    http-request deny deny_status {status} if {{ sc_http_req_rate(0) gt 10 }}"""

FRONTS: Mapping[str, Front] = {
    "limit_req": _RATE,  # 503 is the status that both limiters have by default
    "limit_req-429": _RATE._replace(limit=_RATE.limit + " limit_req_status 429;"),
    "limit_conn": _PLACES,
    "limit_conn-429": _PLACES._replace(limit=_PLACES.limit + " limit_conn_status 429;"),
    "queue": Haproxy(server="maxconn 4"),
    "table": Haproxy(_TABLE.format(status=503)),
    "table-429": Haproxy(_TABLE.format(status=429)),
    "open": Gateway(0.0),
    "random-5-250ms": Gateway(0.05, "retry-after-ms: 250"),
    "random-5-1s": Gateway(0.05, "Retry-After: 1"),
    "random-5": Gateway(0.05),
    "random-15": Gateway(0.15),
    "random-30": Gateway(0.30),
}

_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/errors error;
events {{ worker_connections 4096; }}
http {{
    log_format said "$msec $status";
    access_log {folder}/log said;
    tcp_nodelay on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {zone}
    upstream model {{ server 127.0.0.1:{model}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        server_name model;
        location / {{
            {limit}
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
        location = /last {{ return 204; }}
    }}
}}
"""

_HAPROXY = """
global
    nbthread 1
    log stdout format raw local0
defaults
    mode http
    log global
    option dontlognull
    log-format "%Ts.%ms %ST"
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout queue 500ms
frontend calls
    bind 127.0.0.1:{port} backlog 4096
    http-request return status 204 if {{ path /last }}
    {frontend}
    default_backend model
backend model
    server model 127.0.0.1:{model} {server}
"""


class Running(NamedTuple):
    """A front that is up.

    Attributes:
        base_url: the API's root.
        log: when which status was said, so far; what a client has seen, is in it.
    """

    base_url: str
    log: Callable[[], List[Entry]]

    def refused(self) -> int:
        """The number of calls that were refused so far."""
        return sum(status in _REFUSALS for _, status in self.log())


@contextmanager
def running(front: Front, latency: float = LATENCY) -> Iterator[Running]:
    """A front and its model, ended with the block.

    Raises:
        RuntimeError: one of them does not start.
    """
    with ExitStack() as stack:
        share, hint = (front.share, front.hint) if isinstance(front, Gateway) else (0.0, "")
        model = stack.enter_context(_model({"latency": latency, "share": share, "hint": hint}))
        if isinstance(front, Gateway):
            yield Running(f"http://127.0.0.1:{model}{_PATH}", lambda: _entries(json.loads(_get(model, "/log"))))
            return
        folder, port = stack.enter_context(_folder()), quiet_port()
        log = stack.enter_context(_started(front, folder, port, model))
        yield Running(f"http://127.0.0.1:{port}{_PATH}", lambda: _read(log, port))


def config(front: Union[Nginx, Haproxy], folder: Path, port: int, model: int) -> str:
    """The configuration of a front that listens on ``port``, with the model on port ``model``."""
    template = _NGINX if isinstance(front, Nginx) else _HAPROXY
    return template.format(folder=folder, port=port, model=model, **front._asdict())


@contextmanager
def _model(spec: Mapping[str, object]) -> Iterator[int]:
    command = [sys.executable, "-m", f"{__package__}.model_server", json.dumps(spec)]
    process = subprocess.Popen(command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        try:
            port_line = process.stdout.readline()
            if not port_line:
                raise RuntimeError("the model's server does not start")
            yield int(port_line)
        finally:
            process.kill()


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="chatpool-overload-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(front: Union[Nginx, Haproxy], folder: Path, port: int, model: int) -> Iterator[Path]:
    """The front; yields the path of its log."""
    path, errors = folder / "config", folder / "errors"
    path.write_text(config(front, folder, port, model), encoding="utf-8")
    if isinstance(front, Nginx):
        command = [binary("nginx"), "-p", str(folder), "-e", str(errors), "-c", str(path)]
    else:
        command = [binary("haproxy"), "-db", "-f", str(path)]
    with open(folder / "log", "ab") as log, open(errors, "ab") as error_log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=error_log)
    try:
        wait_until_up(process, port, errors)
        yield folder / "log"
    finally:
        process.kill()
        process.wait(10)


def _read(path: Path, port: int) -> List[Entry]:
    # One thread writes the log: when this is answered, what was answered before stands there.
    _get(port, "/last")
    entries = _entries([line.split() for line in path.read_text(encoding="utf-8").splitlines()])
    return [entry for entry in entries if entry[1] not in (_NO_STATUS, _LAST)]


def _entries(pairs: Iterable[Sequence[str]]) -> List[Entry]:
    return [(float(moment), int(status)) for moment, status in pairs]


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()
