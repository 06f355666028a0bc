"""One contender under some Python: ``python -m benchmarks.interpreters_child SPEC`` prints what it used."""

from __future__ import annotations

import http.client
import json
import platform
import sys
from typing import Any, Dict, List, Mapping

from . import contender_child

__all__ = ["run"]


def run(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what :func:`.contender_child.run` does, and facts about the interpreter.

    ``line_by_line`` is the share of responses whose head http.client has read, in place of chatpool's fast path.
    """
    heads = _watch_heads()
    used = contender_child.run(spec)
    return {
        **used,
        "line_by_line": len(heads) / (spec["warm_up"] + spec["calls"]),
        "python": platform.python_version(),
        "lock": getattr(sys, "_is_gil_enabled", lambda: True)(),
    }


def _watch_heads() -> List[None]:
    """Return a list that grows by one item with every status line that http.client reads."""
    heads: List[None] = []
    plain = http.client.HTTPResponse._read_status  # type: ignore[attr-defined]

    def watched(response: http.client.HTTPResponse) -> Any:
        heads.append(None)  # without the lock, too, no item is lost
        return plain(response)

    http.client.HTTPResponse._read_status = watched  # type: ignore[attr-defined]
    return heads


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
