"""From a request's parts to requests' PreparedRequest, key included."""

from __future__ import annotations

from typing import Any, Mapping, Optional

import requests
from requests.models import PreparedRequest

from .settings import TransportSettings

__all__ = ["Preparer"]


class Preparer:
    """Prepares requests with the settings of a session and a transport.

    Args:
        session: its headers, params, cookies and hooks go into each request. Its ``auth`` is taken out of it,
            and used only where there is no key.
        settings: headers, query and key on top of that.
    """

    def __init__(self, session: requests.Session, settings: TransportSettings) -> None:
        self._session = session
        self._settings = settings
        theirs, session.auth = session.auth, None
        # Even without a key: with no auth= at all, requests would send what .netrc holds for the host.
        self._auth: Any = theirs if theirs is not None and settings.auth.header is None else settings.auth

    def prepare(
        self,
        method: str,
        url: str,
        body: bytes,
        *,
        headers: Optional[Mapping[str, Optional[str]]] = None,
        query: Optional[Mapping[str, str]] = None,
    ) -> PreparedRequest:
        """A request ready to be sent; ``headers`` and ``query`` go on top of the settings'."""
        kind = {"Content-Type": "application/json"} if body else {}
        request = requests.Request(
            method,
            url,
            headers={**kind, **self._settings.headers, **(headers or {})},
            data=body or None,
            params={**self._settings.query, **(query or {})},
            auth=self._auth,
        )
        return self._session.prepare_request(request)

    def redirected(self, prepared: PreparedRequest, url: str) -> PreparedRequest:
        """The same request to another URL of the same origin."""
        copied = prepared.copy()
        copied.prepare_url(url, None)
        return copied
