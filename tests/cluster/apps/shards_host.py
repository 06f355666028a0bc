"""A host that runs the shards of a plan until none is left, whatever happens: ``shards_host.py FOLDER OPTIONS``.

OPTIONS are those of ``shards.run``, as JSON; ``beats`` among them makes a lease shorter than a test has time for.
"""

from __future__ import annotations

import json
import socket
import sys
import time

from chatpool import ChatPoolError, Limits
from chatpool._journal import folder_lease
from chatpool.batch import shards

options = json.loads(sys.argv[2])
for name, seconds in options.pop("beats", {}).items():
    setattr(folder_lease, name, seconds)
if "limits" in options:
    options["limits"] = Limits(**options["limits"])
plan = shards.load(sys.argv[1])
print("ready", socket.gethostname(), flush=True)
while True:
    try:
        pending = [state.index for state in shards.status(plan) if state.pending]
    except (ChatPoolError, OSError) as error:  # cut off
        print("status", type(error).__name__, error, flush=True)
        pending = [0]
    if not pending:
        break
    for index in pending:
        try:
            print("begins", index, flush=True)
            result = shards.run(plan, index, model="m", api_key="sk-of-nobody", progress=False, **options)
            print("ended", index, result["succeeded"], result["fatal"], flush=True)
        except (ChatPoolError, OSError) as error:
            print("left", index, type(error).__name__, error, flush=True)
    time.sleep(0.2)
print("nothing is left", flush=True)
