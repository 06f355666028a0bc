"""A task of Celery's that answers shards: its worker, and (``celery_shards.py COMMAND ...``) a client of its own."""

from __future__ import annotations

import json
import os
import sys

from celery import Celery

from chatpool import Limits
from chatpool.contrib.celery import ShardStopped, ShardTask, submit_file

app = Celery("celery_shards", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    result_expires=600,
    # Not what a site would set: the tests wait for second deliveries.
    broker_transport_options={"unacked_restore_interval": 1, "unacked_restore_throttle": 1},
)
if "VISIBILITY" in os.environ:
    app.conf.broker_transport_options["visibility_timeout"] = float(os.environ["VISIBILITY"])
limits = None
if "SCOPE" in os.environ:
    limits = Limits(requests_per_minute=600, scope=os.environ["SCOPE"])
options = {"model": "m", "base_url": os.environ["CHAT_URL"], "max_workers": 4, "limits": limits, "retry": 0}


@app.task(base=ShardTask, bind=True, default_retry_delay=1)
def answer(self, folder, index):
    return self.run_shard(folder, index, **options)


@app.task(base=ShardTask, bind=True, soft_time_limit=2)
def answer_in_two_seconds(self, folder, index):
    return self.run_shard(folder, index, **options)


def tell_progress(message):
    if message["status"] == "PROGRESS":
        print("PROGRESS", json.dumps(message["result"]), flush=True)


def told(result):
    """What a task returns, or what it raises, as JSON."""
    try:
        return result.get(timeout=240, on_message=tell_progress)
    except ShardStopped as error:
        return [str(error), type(error.error).__name__, error.error.status_code, error.pending]
    except Exception as error:
        return type(error).__name__


if __name__ == "__main__":
    name, command, *arguments = sys.argv[1:]
    task = app.tasks[f"celery_shards.{name}"]
    if command == "submit":
        source, folder, rows = arguments
        results = submit_file(task, source, folder, shard_rows=int(rows)).results
    else:
        results = [task.delay(arguments[0], int(index)) for index in arguments[1:]]
    print(json.dumps([told(result) for result in results]))
