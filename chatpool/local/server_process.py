"""The process that serves the embedded model: ``server.py`` starts it as a script; it ends when its input does."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, NoReturn


def serve(settings: Dict[str, Any]) -> Any:
    """Start a server; it runs as long as the returned object lives."""
    import xllamacpp  # here, so that a failed import is reported to the parent as other failures are

    parameters = xllamacpp.CommonParams()
    parameters.verbosity = 0
    parameters.model.path = settings["path"]
    parameters.model_alias = {settings["model"]}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = settings["port"]
    parameters.n_parallel = settings["parallel"]
    parameters.n_ctx = settings["context"]
    parameters.n_predict = settings["answer_tokens"]  # of requests that say nothing about it
    parameters.cpuparams.n_threads = settings["threads"]
    # One store of context for all requests: a long request may use the part that short ones do not need.  No copies
    # of old contexts: they cost a tenth of the speed of short answers, as measured.
    parameters.kv_unified = True
    parameters.cache_idle_slots = False
    parameters.cache_ram_mib = 0
    parameters.ui = False
    if settings["embeddings"]:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(parameters)


def main() -> NoReturn:
    """Serve until the parent closes the pipe or has ended, then end at once.

    The server's destructor waits for ever for a request in flight, so it never runs.
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
