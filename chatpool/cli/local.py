"""``chatpool local``."""

from __future__ import annotations

import threading
from argparse import Namespace

from ..errors import ConfigurationError
from ..local import LocalServer, install, model_path
from . import exits
from .terminal import complain

__all__ = ["install_model", "serve_model"]


def install_model(arguments: Namespace) -> int:
    """``chatpool local install``: print where the model is."""
    try:
        model_path()
    except ConfigurationError:
        if not arguments.source:
            complain("fetching the embedded model, 93 MB; this happens once")
    print(install(arguments.source))
    return exits.OK


def serve_model(arguments: Namespace) -> int:
    """``chatpool local serve``: print the base URL and serve until a signal ends it."""
    with LocalServer(port=arguments.port, parallel=arguments.max_workers) as server:
        print(server.base_url, flush=True)
        threading.Event().wait()
    return exits.OK
