"""A process with many threads that use a shared limit; tells which moments they were given."""

from __future__ import annotations

import json
import sys
import threading
import time

from chatpool._quota import Sharing


def use(limit, ends, tokens, used, slots):
    never = threading.Event()
    while True:
        asked_at = time.monotonic()
        if asked_at >= ends:
            return
        slot = limit.reserve(1, tokens, max_wait=ends - asked_at)
        if not slot.granted:
            return
        slots.append((slot.at, asked_at))
        never.wait(slot.wait)
        if used is not None:
            limit.correct(slot, used)


def main():
    options = json.loads(sys.argv[1])
    limit = Sharing(options["scope"], **options["limits"]).limit("http://server", "m")
    limit.status()
    print("ready", flush=True)
    sys.stdin.readline()
    ends = time.monotonic() + options["seconds"]
    found = [[] for _ in range(options["threads"])]
    threads = [
        threading.Thread(target=use, args=(limit, ends, options.get("tokens", 0.0), options.get("used"), slots))
        for slots in found
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"slots": found, "shared": limit.is_shared, "sharers": limit.status().sharers}))


main()
