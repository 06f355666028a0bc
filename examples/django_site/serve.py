"""Starts the site under gunicorn, with a model; Ctrl-C ends it, and nothing is left of it.

    python examples/django_site/serve.py [--practice] [--model NAME] [--port 8000]

The model is a small one on this machine (extra ``local``, fetched once: 93 MB); with ``--practice`` a server that makes
its answers up; with ``--model`` one at the server that OPENAI_BASE_URL and OPENAI_API_KEY name. In CHATPOOL_SITE_MODEL
may stand the same: ``embedded``, ``practice`` or a name. ``make site`` starts it too (PORT=8001, ARGS=--practice).
"""

import argparse
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import practice

from chatpool.local import LocalServer, install
from chatpool.testing import FakeServer

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
VISITORS = 32  # at once; an answer that is shown while it is written holds its thread
STOP_SECONDS = 5


def main(arguments=None):
    """Serve until Ctrl-C or SIGTERM; returns the exit status."""
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening_at(options.port))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chatpool-site-"))
        environment = {
            **stack.enter_context(model_server(options.model)),
            "CHATPOOL_SITE_FOLDER": folder,
            "CHATPOOL_SITE_SECRET": secrets.token_urlsafe(50),
            "DJANGO_SETTINGS_MODULE": "settings",
        }
        subprocess.run([sys.executable, "-m", "django", "migrate", "-v", "0"], cwd=HERE, env=environment, check=True)
        site = stack.enter_context(gunicorn(listener, environment))
        print(f"http://{HOST}:{listener.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        return site.wait()
    return 0


def parsed(arguments):
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    is_real = "OPENAI_API_KEY" in os.environ or "OPENAI_BASE_URL" in os.environ
    default = os.environ.get("CHATPOOL_SITE_MODEL") or ("gpt-4o-mini" if is_real else "embedded")
    parser.add_argument("--model", default=default, help="embedded, practice, or a model's name (default: %(default)s)")
    parser.add_argument("--practice", dest="model", action="store_const", const="practice", help="made-up answers")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (default: %(default)s)")
    return parser.parse_args(arguments)


def listening_at(port):
    """A socket that visitors can connect to; it says so now if another program has the port."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        sys.exit(
            f"Port {port} cannot be used ({os.strerror(error.errno)}); choose another: --port 0, or make site PORT=8001"
        )


@contextlib.contextmanager
def model_server(model):
    """Run what answers, if it is ours to run; yields the environment in which the site finds it."""
    environment = {**os.environ, "CHATPOOL_SITE_MODEL": model}
    if model not in ("embedded", "practice"):
        yield environment
        return
    environment.pop("OPENAI_API_KEY", None)  # a key of yours is not for them
    if model == "embedded":
        print("Starting the embedded model; the first time it is fetched (93 MB).", flush=True)
        install()
    with LocalServer() if model == "embedded" else FakeServer(practice.answer) as server:
        name = getattr(server, "model", model)
        yield {**environment, "CHATPOOL_SITE_MODEL": name, "OPENAI_BASE_URL": server.base_url}


@contextlib.contextmanager
def gunicorn(listener, environment):
    """Run gunicorn on the socket; at the end of the block it ends."""
    command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--log-level", "warning"]
    command += ["--worker-class", "gthread", "--threads", str(VISITORS), "--graceful-timeout", str(STOP_SECONDS)]
    command += ["django.core.wsgi:get_wsgi_application()"]
    process = subprocess.Popen(command, cwd=HERE, env=environment, pass_fds=[listener.fileno()])  # noqa: S603 - fixed
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)  # after Ctrl-C it has had one; a second does nothing
        try:
            process.wait(STOP_SECONDS + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
