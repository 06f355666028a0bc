"""Paths of the API and the handlers that answer them; the contents of answers, and bodies of errors and lists.

Source of the bodies: the public API reference.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Protocol, Sequence, Tuple

from .received import ReceivedRequest

__all__ = [
    "Content",
    "Handler",
    "Router",
    "Service",
    "api_path",
    "error_body",
    "invalid_request",
    "is_azure",
    "json_handler",
    "list_page",
    "not_found",
]


class Content(NamedTuple):
    """The content of an answer: its status, and a body that is sent as JSON; bytes are sent as they are."""

    status: int
    body: Any
    content_type: str = "application/json"


Handler = Callable[[ReceivedRequest, Optional[str], str], Content]
"""Answers a request, with a text if a script gives one, and the id in its path ("" without one)."""

Routes = Mapping[Tuple[str, str], Handler]


class Service(Protocol):
    """A part of the API.

    Attributes:
        routes: handlers by method and path below ``/v1``; ``{id}`` stands for the second part of any path.
    """

    routes: Routes


class Router:
    """Finds the handler of each request.

    Args:
        services: the parts of the API.
    """

    def __init__(self, *services: Service) -> None:
        self._routes: Dict[Tuple[str, str], Handler] = {}
        for service in services:
            self._routes.update(service.routes)
        self._paths = {path for _, path in self._routes}

    def content(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        """Return the answer to ``request``, with ``text`` if that is given."""
        path = api_path(request.path)
        if path is None:
            return _unknown_url(request, 404, " The paths of this server begin with /v1.")
        id_in_path = ""
        if path not in self._paths:
            path, id_in_path = _template(path)
        handler = self._routes.get((request.method, path))
        if handler is None:
            return _unknown_url(request, 405 if path in self._paths else 404)
        return handler(request, text, id_in_path)


def api_path(path: str) -> Optional[str]:
    """Return the path below ``/v1``, or below Azure's ``/openai`` or one of its deployments; None for other paths."""
    _, separator, below = path.partition("/v1/")
    if separator:
        return "/" + below
    if not is_azure(path):
        return None
    below = path[len("/openai/") :]
    if below.startswith("deployments/"):
        _, _, below = below[len("deployments/") :].partition("/")
    return "/" + below


def is_azure(path: str) -> bool:
    """Return True for a path of Azure's."""
    return path.startswith("/openai/")


def _template(path: str) -> Tuple[str, str]:
    """Return the path with ``{id}`` in the place of its second part, and that part."""
    first, _, rest = path[1:].partition("/")
    second, separator, rest = rest.partition("/")
    return f"/{first}/{{id}}{separator}{rest}", second


def json_handler(answer: Callable[[ReceivedRequest, Optional[str]], Content]) -> Handler:
    """Return a handler that refuses bodies other than JSON objects."""

    def handle(request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
        if not isinstance(request.body, dict):
            return invalid_request("We could not parse the JSON body of your request: it must be an object.")
        return answer(request, text)

    return handle


def list_page(entries: Sequence[Mapping[str, Any]], query: Mapping[str, str], *, default_limit: int) -> Content:
    """Return the page of ``entries`` that ``query`` asks for with ``after`` and ``limit``."""
    start = 0
    if "after" in query:
        places = [place for place, entry in enumerate(entries) if entry["id"] == query["after"]]
        if not places:
            return not_found("object", query["after"])
        start = places[0] + 1
    limit = query.get("limit", str(default_limit))
    if not limit.isdigit() or int(limit) < 1:
        return invalid_request(f"Invalid 'limit': expected an integer above 0, but got {limit!r} instead.", "limit")
    page: List[Mapping[str, Any]] = list(entries[start : start + int(limit)])
    ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    has_more = start + len(page) < len(entries)
    return Content(200, {"object": "list", "data": page, "first_id": ends[0], "last_id": ends[1], "has_more": has_more})


def error_body(message: str, *, type: Optional[str], code: Any, param: Optional[str] = None) -> Dict[str, Any]:  # noqa: A002
    """Return an error body of OpenAI's form."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def invalid_request(message: str, param: Optional[str] = None, *, status: int = 400) -> Content:
    """Return the refusal of a request."""
    return Content(status, error_body(message, type="invalid_request_error", code=None, param=param))


def not_found(kind: str, id_in_path: str) -> Content:
    """Return the answer about an id that names nothing."""
    return invalid_request(f"No such {kind}: {id_in_path}", "id", status=404)


def _unknown_url(request: ReceivedRequest, status: int, advice: str = "") -> Content:
    message = f"Unknown request URL: {request.method} {request.path}.{advice}"
    return Content(status, error_body(message, type="invalid_request_error", code="unknown_url"))
