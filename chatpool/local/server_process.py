"""The process that serves the embedded model: started as a script by ``server.py``, ended by the end of its input."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, NoReturn


def serve(settings: Dict[str, Any]) -> Any:
    """A running server; it lives as long as the object does."""
    import xllamacpp  # here, so that a failing import is reported to the parent like any other failure

    parameters = xllamacpp.CommonParams()
    parameters.verbosity = 0
    parameters.model.path = settings["path"]
    parameters.model_alias = {settings["model"]}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = settings["port"]
    parameters.n_parallel = settings["parallel"]
    parameters.n_ctx = settings["context"]
    parameters.cpuparams.n_threads = settings["threads"]
    # One store of context for all requests, so that a long one may use what short ones leave; and no copies of
    # old contexts: measured, they cost a tenth of the speed of short answers.
    parameters.kv_unified = True
    parameters.cache_idle_slots = False
    parameters.cache_ram_mib = 0
    parameters.ui = False
    if settings["embeddings"]:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(parameters)


def main() -> NoReturn:
    """Serve until the parent closes the pipe or is gone, then end without ceremony.

    The server's destructor waits for ever for a request that is under way, so it is never run.
    """
    try:
        server = serve(json.loads(sys.argv[1]))
        print(json.dumps({"address": server.listening_address}), flush=True)  # noqa: T201 - read by the parent
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)  # noqa: T201 - as above
        os._exit(1)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
