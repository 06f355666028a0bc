"""``RequestBudgetMiddleware``: one limit of time for all calls that a request makes."""

from __future__ import annotations

from typing import Any, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed

from ... import deadline
from ...config import positive_seconds

__all__ = ["RequestBudgetMiddleware"]

_SETTING = "CHATPOOL_REQUEST_SECONDS"


class RequestBudgetMiddleware:
    """Give each request ``CHATPOOL_REQUEST_SECONDS`` for all its calls together, as :func:`chatpool.deadline` does.

    Without the setting it is left out.  Put it where the time shall begin: what stands above it does not count.

    Args:
        get_response: the rest of the site.

    Raises:
        ImproperlyConfigured: the setting is no number of seconds greater than 0.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        seconds = getattr(settings, _SETTING, None)
        if seconds is None:
            raise MiddlewareNotUsed(f"there is no {_SETTING}")
        try:
            self._seconds = positive_seconds(_SETTING, seconds)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(str(error)) from error
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Return the response, or under ASGI an awaitable of it."""
        if self._is_async:
            return self._call_async(request)
        with deadline(self._seconds):
            return self._get_response(request)

    async def _call_async(self, request: Any) -> Any:
        with deadline(self._seconds):
            return await self._get_response(request)
