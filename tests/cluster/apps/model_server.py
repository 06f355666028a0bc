"""A model that answers with the prompt after a while: ``model_server.py PORT SECONDS``; says when each request came."""

from __future__ import annotations

import os
import sys
import threading
import time

from chatpool.testing import Delay, FakeServer

port, seconds = int(sys.argv[1]), float(sys.argv[2])


def told(request):
    os.write(1, f"request {time.time():.3f} {request.prompt}\n".encode())  # whole, whichever thread writes
    return Delay(seconds)


with FakeServer(told, port=port):
    print("serving", flush=True)
    threading.Event().wait()
