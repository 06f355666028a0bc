"""Answer a large file on Ray: a task for each shard, which goes on where it was when Ray tries it again.

python ray_shards.py questions.jsonl /shared/work answers.jsonl
"""

import os
import sys
import time

import ray

from chatpool import JournalBusyError, Limits
from chatpool.batch import shards
from chatpool.errors import from_dict

BUSY_SECONDS = 10  # to wait for another process that has the shard
SCOPE = os.environ.get("LIMITS_SCOPE")  # redis://cache/our-account, where there is more than one host


@ray.remote(max_retries=5, scheduling_strategy="SPREAD")
def answer(folder, index):
    """Answer every row of a shard that has no answer yet; returns the counts."""
    options = {"model": "gpt-4o-mini", "max_workers": 16, "limits": Limits(requests_per_minute=3000, scope=SCOPE)}
    while True:
        try:
            result = shards.run(folder, index, progress=False, **options)
        except JournalBusyError:  # of a task that Ray has given up, and that has not ended
            time.sleep(BUSY_SECONDS)
        else:
            break
    if result["fatal"]:
        raise from_dict(result["fatal"])
    return result


def main(source, folder, output):
    """Split, answer and merge; the same call again sends only what has no answer yet."""
    ray.init()  # the cluster of RAY_ADDRESS, or else this machine
    plan = shards.split(source, folder, rows=2000)
    left = [answer.remote(plan.folder, shard.index) for shard in plan.shards]
    while left:
        (done,), left = ray.wait(left)
        result = ray.get(done)
        print(f"shard {result['shard']}: {result['succeeded']} of {result['rows']} answered, {len(left)} shards left")
    print(shards.merge(plan, output).summary())


if __name__ == "__main__":
    main(*sys.argv[1:])
