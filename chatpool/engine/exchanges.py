"""One exchange of a call, and what came of it: a whole answer, or a stream that is read."""

from __future__ import annotations

from typing import Any, Dict, Set, Union

from ..clock import Clock
from ..config import Timeout
from ..transport import CancelToken, OpenStream
from ..types import Reply, Verdict
from ..wire import judge_exception, judge_reply, judge_stream, refuses_usage, without_usage
from .call import Call
from .payload import payload_of, reading_of
from .routes import Route, Routes
from .scheduler import Scheduler
from .streams import Reading, StreamedChunks, WholeAnswer
from .visits import LineKey

__all__ = ["Exchanges"]

_REFUSED = range(400, 500)


class Exchanges:
    """Makes the exchanges of calls.

    Args:
        routes: where they go.
        clock: the pool's clock.
        scheduler: knows what has succeeded before, on which the judgement of an answer depends.
    """

    def __init__(self, routes: Routes, clock: Clock, scheduler: Scheduler) -> None:
        self._routes = routes
        self._clock = clock
        self._scheduler = scheduler
        self._without_usage: Set[LineKey] = set()  # whose server refuses stream_options

    def make(self, call: Call, timeout: Timeout, ends: float) -> Verdict:
        """Send ``call`` and judge its answer.

        Args:
            call: what to send.
            timeout: the limits for it.
            ends: when the call's time is over, on the pool's clock.

        Raises:
            Cancelled: the call was given up.
            Exception: no whole answer came.
        """
        reading, route = reading_of(call.request, call.options.reading), self._routes.of(call)
        if reading is None:
            return self._judge(call, self._send(call, timeout, route, route.transport.exchange))
        answer = self._open(call, timeout, route)
        if isinstance(answer, Reply):
            verdict = self._judge(call, answer)
            return reading(call, WholeAnswer(verdict)) if verdict.kind == "success" else verdict
        return self._read(call, answer, route, reading, ends)

    def _send(self, call: Call, timeout: Timeout, route: Route, send: Any) -> Any:
        options = call.options
        return send(
            call.request,
            route.payload(call),
            timeout=timeout,
            cancel=call.token or CancelToken(),
            headers=options.headers,
            query=options.query,
        )

    def _open(self, call: Call, timeout: Timeout, route: Route) -> Union[Reply, OpenStream]:
        """Ask for a stream; where the server refuses our asking for the usage, once more without that."""
        if call.line in self._without_usage:
            call.payload = payload_of(without_usage(call.request), call.options.reading)
        answer: Union[Reply, OpenStream] = self._send(call, timeout, route, route.transport.open)
        if not isinstance(answer, Reply) or not refuses_usage(answer, call.request):
            return answer
        call.payload = payload_of(without_usage(call.request), call.options.reading)
        answer = self._send(call, timeout, route, route.transport.open)
        if answer.status not in _REFUSED:
            self._without_usage.add(call.line)
        return answer

    def _read(self, call: Call, stream: OpenStream, route: Route, reading: Reading, ends: float) -> Verdict:
        transport = route.transport
        head = Reply(stream.status, stream.headers, b"", transport.url_of(call.request.path), transport.proxy)
        chunks = StreamedChunks(
            stream,
            call,
            ends - self._clock.now(),
            lambda reader: judge_stream(reader, head, call.request, **self._known(call)),
            lambda error: judge_exception(error, url=head.url, proxy=head.proxy),
            max_event_bytes=transport.settings.max_response_bytes,
        )
        try:
            return reading(call, chunks)
        finally:
            chunks.close()

    def _judge(self, call: Call, reply: Reply) -> Verdict:
        # Not through a dict: this runs once per call.
        return judge_reply(
            reply,
            call.request,
            endpoint_proven=self._scheduler.proven(call.line[0]),
            model_proven=self._scheduler.health(call.line).proven,
            wall=self._clock.wall(),
        )

    def _known(self, call: Call) -> Dict[str, Any]:
        """What judging an answer takes besides the answer."""
        return {
            "endpoint_proven": self._scheduler.proven(call.line[0]),
            "model_proven": self._scheduler.health(call.line).proven,
            "wall": self._clock.wall(),
        }
