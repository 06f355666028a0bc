"""The background responses of a :class:`FakeServer`: they move on when they are asked for, or when it is told."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Optional

from .model import response_object
from .received import ReceivedRequest
from .routing import Content, Handler, Routes, invalid_request
from .scenarios import BackgroundScenario, Course, ScenarioQueue, ScenarioRule

__all__ = ["Background"]


class _BackgroundResponse(Course):
    """One background response.

    Args:
        shown: the API's object.
        scenario: its course.
        answer: makes the whole answer.
    """

    def __init__(self, shown: Dict[str, Any], scenario: BackgroundScenario, answer: Callable[[], Content]) -> None:
        super().__init__(shown, scenario.polls, ["in_progress", scenario.end])
        self.scenario = scenario
        self.answer = answer


class Background:
    """Answers the paths of ``/responses``: background responses itself, and others by the model.

    Args:
        model: answers POST ``/responses``.
        scenarios: the courses of background responses.
    """

    def __init__(self, model: Handler, scenarios: ScenarioRule[BackgroundScenario]) -> None:
        self._model = model
        self._scenarios = ScenarioQueue("background", scenarios, BackgroundScenario())
        # Functions of the test are called while it is held, and may ask what is shown: that is without.
        self._lock = threading.RLock()
        self._responses: Dict[str, _BackgroundResponse] = {}
        self.routes: Routes = {
            ("POST", "/responses"): self._create,
            ("GET", "/responses/{id}"): self._of(self._poll),
            ("POST", "/responses/{id}/cancel"): self._of(self._cancel),
            ("DELETE", "/responses/{id}"): self._of(self._delete),
        }

    def shown(self) -> List[Dict[str, Any]]:
        """Return the API's objects, the oldest first; none moves on by that."""
        return [response.shown for response in list(self._responses.values())]

    def advance(self, only: Optional[str]) -> int:
        """Move on every response that has not ended, or ``only`` the one with this id; return how many there were."""
        with self._lock:
            responses = [r for r in self._responses.values() if r.course and only in (None, r.shown["id"])]
            for response in responses:
                self._advance(response)
            return len(responses)

    def _create(self, request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
        body = request.body
        if not isinstance(body, dict) or not body.get("background") or body.get("stream") or not body.get("input"):
            return self._model(request, text, id_in_path)
        if body.get("store") is False:
            return invalid_request("Background mode requires 'store' to be true.", "store")
        whole = response_object("", id=f"resp-{request.number}", model=str(body.get("model")))
        changes: Dict[str, Any] = {"status": "queued", "output": [], "usage": None, "background": True}
        shown = {**whole, **changes, "metadata": body.get("metadata") or {}}
        with self._lock:
            scenario = self._scenarios.take(body)
            answer = lambda: self._model(request, text, id_in_path)  # noqa: E731 - of this request alone
            self._responses[shown["id"]] = _BackgroundResponse(shown, scenario, answer)
            return Content(200, shown)

    def _of(self, change: Callable[[_BackgroundResponse], Optional[Content]]) -> Handler:
        def handle(request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
            with self._lock:
                response = self._responses.get(id_in_path)
                if response is None:
                    return invalid_request(f"Response with id '{id_in_path}' not found.", status=404)
                return change(response) or Content(200, response.shown)

        return handle

    def _poll(self, response: _BackgroundResponse) -> None:
        while response.is_due():
            self._advance(response)
        response.seen += 1

    def _cancel(self, response: _BackgroundResponse) -> None:
        if response.course:
            response.course = []
            response.enter("cancelled")

    def _delete(self, response: _BackgroundResponse) -> Content:
        response_id = response.shown["id"]
        del self._responses[response_id]
        return Content(200, {"id": response_id, "object": "response", "deleted": True})

    def _advance(self, response: _BackgroundResponse) -> None:
        following = response.course[0]
        fields: Dict[str, Any] = {}
        if following in ("completed", "incomplete"):
            # A function of the test comes first: if it raises, the response is as it was.
            following, fields = _ended(response, following)
        elif following == "failed":
            code, message = response.scenario.error
            fields = {"error": {"code": code, "message": message}}
        del response.course[0]
        response.enter(following, **fields)


def _ended(response: _BackgroundResponse, end: str) -> Any:
    """Return the state and the fields of a response that the model has answered."""
    answer = response.answer()
    if answer.status != 200:
        error = answer.body["error"]
        return "failed", {"error": {"code": "invalid_prompt", "message": error["message"]}}
    fields = {name: value for name, value in answer.body.items() if name not in ("id", "status", "metadata")}
    if end == "incomplete":
        return end, {**fields, "incomplete_details": {"reason": response.scenario.reason}}
    return answer.body.get("status", end), fields
