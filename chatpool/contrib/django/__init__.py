"""chatpool in a Django site: pools from settings, system checks, streams, rows of a table, and tests.

Settings have the form of ``CACHES``::

    INSTALLED_APPS = [..., "chatpool.contrib.django"]
    CHATPOOL = {"default": {"MODEL": "gpt-4o-mini", "TIMEOUT": {"total": 3}}}

And in a view::

    from chatpool.contrib.django import pool

    def summary(request):
        return HttpResponse(pool.chat(f"Summarise: {request.GET['text']}").text)
"""

from __future__ import annotations

from ... import deadline as budget
from .conf import InvalidPoolError
from .pools import pool, pools
from .querysets import run_queryset
from .responses import StreamingChatResponse, sse

__all__ = ["InvalidPoolError", "StreamingChatResponse", "budget", "pool", "pools", "run_queryset", "sse"]
