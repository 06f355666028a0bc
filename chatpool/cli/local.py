"""``chatpool local``."""

from __future__ import annotations

import threading
from argparse import Namespace

from ..local import LocalServer, install
from . import exits

__all__ = ["install_model", "serve_model"]


def install_model(arguments: Namespace) -> int:
    """``chatpool local install``: print where the model is."""
    print(install(arguments.source))
    return exits.OK


def serve_model(arguments: Namespace) -> int:
    """``chatpool local serve``: print the base URL and serve until a signal ends it."""
    with LocalServer(port=arguments.port, parallel=arguments.max_workers) as server:
        print(server.base_url, flush=True)
        threading.Event().wait()
    return exits.OK
