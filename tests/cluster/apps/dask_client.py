"""Run the shards of a folder on a cluster and print the result.

    dask_client.py FOLDER OPTIONS [SCHEDULER_FILE]

OPTIONS is JSON.  Without a scheduler a LocalCluster of four worker processes is made.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys

from distributed import Client, LocalCluster

import chatpool
from chatpool.contrib.dask import run


def main(folder, options, scheduler_file=None):
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    options = {"model": "m", "base_url": os.environ["CHAT_URL"], "max_workers": 4, **json.loads(options)}
    if "limits" in options:
        options["limits"] = chatpool.Limits(**options["limits"])
    if "budget" in options:
        options["budget"] = chatpool.Budget(**options["budget"])
    with contextlib.ExitStack() as stack:
        if scheduler_file is None:
            cluster = LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=None)
            client = stack.enter_context(stack.enter_context(cluster).get_client())
        else:
            client = stack.enter_context(Client(scheduler_file=scheduler_file))
        client.wait_for_workers(options.pop("wait_for", 1))
        print("workers", json.dumps(list(client.run(os.getpid).values())), flush=True)
        try:
            result = run(
                options.pop("folder", folder),
                client,
                on_shard=lambda shard: print("shard", shard["shard"], flush=True),
                **options,
            )
        except KeyboardInterrupt as interrupt:
            result = interrupt.result
            print("interrupted", flush=True)
        print("result", json.dumps(result.to_dict()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
