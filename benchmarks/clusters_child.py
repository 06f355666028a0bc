"""Answer a plan of shards on a LocalCluster: ``python -m benchmarks.clusters_child FOLDER SPEC``."""

from __future__ import annotations

import json
import logging
import sys

from chatpool import Limits
from chatpool.contrib.dask import run

from .clusters import WORKERS


def main(folder: str, spec_text: str) -> None:
    """Run the program."""
    from distributed import LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    spec = json.loads(spec_text)
    limits = None if spec["limits"] is None else Limits(**spec["limits"])
    options = {"base_url": spec["base_url"], "max_workers": spec["max_workers"], "progress": False, "limits": limits}
    cluster = LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
    with cluster, cluster.get_client() as client:
        result = run(folder, client, model="m", **options)
    if result.fatal is not None or result.pending or result.failed:
        raise SystemExit(f"not all rows were answered: {result.summary()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
