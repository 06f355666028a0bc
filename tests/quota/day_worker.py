"""A process of a batch run under a limit per day, on a host whose time a file tells."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from chatpool import ChatPool, Limits
from chatpool._quota import file
from chatpool._quota.day import HostTime


def main():
    options = json.loads(sys.argv[1])
    told = Path(options["time"])

    def host_time(boot):
        return HostTime(*map(float, told.read_text(encoding="utf-8").split()), boot)

    file.host_time = host_time
    limits = Limits(requests_per_day=options["limit"], scope=options["scope"])
    with ChatPool("m", base_url=options["url"], max_workers=options["workers"], limits=limits) as pool:
        print("ready", flush=True)
        sys.stdin.readline()
        results = pool.map(["a"] * options["calls"], progress=False)
        left = next(iter(pool.stats().lines.values())).day_requests_left
    answered = sum(outcome.ok for outcome in results.outcomes)
    fatal = type(results.fatal).__name__
    print(json.dumps({"answered": answered, "fatal": fatal, "left": left}))


main()
