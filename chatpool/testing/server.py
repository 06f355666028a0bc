"""The fake server: an HTTP server, a model and a script, behind one class."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, List, Optional, Type, Union

from ..clock import current_clock
from .audio import Audio
from .background import Background
from .batch_rows import BatchLimits
from .batches import Batches
from .files import FileStore, StoredFile, Uploads
from .http_server import Connection, Listener, ServerRecord
from .images import Images
from .model import MAX_CHOICES, ChoicesLimit, FakeModel, ReplyFunction
from .rate_limits import Cap, Limit, Quota
from .received import RawRequest, ReceivedRequest
from .routing import Router
from .scenarios import BackgroundScenario, BatchScenario, ScenarioRule
from .script import Entry, Faults, Script, ScriptLike, StepQueue, check_entry, script_of
from .steps import Answer, Delay, Error, Step

__all__ = ["FakeServer"]


class FakeServer:
    """A real HTTP server on 127.0.0.1 that behaves like an OpenAI-compatible API, or misbehaves as told.

    It runs in threads of this process from the moment it is made until it is closed, and is a context manager::

        with FakeServer() as server:
            pool = chatpool.ChatPool("any-model", base_url=server.base_url, api_key="any")
            assert pool.chat("ping").text == "ping"
            assert server.requests[0].prompt == "ping"

    Without more it answers as the API does, and the same request always gets the same content:

    - POST ``/v1/chat/completions``, ``/v1/completions`` and ``/v1/responses`` with the last user message (or the
      prompt), ``/v1/embeddings`` with :func:`embedding_vector`, ``/v1/moderations`` with nothing flagged. ``usage``
      counts words. GET ``/v1/models``;
    - ``/v1/files``, ``/v1/uploads`` and ``/v1/batches`` from memory: :attr:`files` and :attr:`batches` show what is
      there. Rows of a batch are answered as single requests are. A batch goes on to its next state after each GET of
      it, unless a :class:`BatchScenario` says otherwise, and never because time passes;
    - responses with ``"background": true`` in the same way (:attr:`background`, :class:`BackgroundScenario`);
    - ``/v1/audio/speech`` with bytes that hold the text (``wav`` can be played, other formats cannot);
      ``/v1/audio/transcriptions`` and ``/translations`` with the text that a file holds, or its name and size, a word
      every half second;
    - ``/v1/images/generations``, ``/edits`` and ``/variations`` with small PNGs, as base64 or at an address of this
      server.

    The same paths are served below ``/openai`` and ``/openai/deployments/NAME``, as Azure has them; a file is
    ``"pending"`` there at first.

    Args:
        script: what to do with requests instead of answering as usual:

            - a step, for every request: ``Error(401)``;
            - a list or another iterable of steps, for the first, second, ... request in the order of arrival; None
              in it, and everything after its end, is answered as usual: ``[Error(503), None, Answer("pong")]``;
            - a dict from prompt to any of these: ``{"bad row": Error(400)}``;
            - :class:`EachCall`: ``EachCall(Error(503))`` lets every call fail once;
            - a function of the :class:`ReceivedRequest` that returns a step or None. It runs in the threads of the
              connections, several at a time.
        reply: ``callable(body) -> text`` (or a list of texts for the choices of one chat, or a whole body as a dict):
            what the model says, in rows of batches too.
            For a sound, ``body`` is the fields of its form, and ``body["file"]`` a :class:`ReceivedFile`. Default: an
            echo.
        faults: random faults (:class:`Faults`) for requests to which the script says nothing.
        limits: a :class:`Quota`, a :class:`Cap` or several of them. A request that one of them refuses gets a 429
            and does not reach the script.
        latency: seconds before every usual answer.
        tls: an ``ssl.SSLContext`` with a certificate, to serve https.
        port: the port to listen on, such as that of a server that was closed and is now started again. Default: one
            that the system chooses.
        batches: the course of batches: a :class:`BatchScenario` for all; a list of them, in which None is the
            default, for the first, second, ...; or a function of the body that creates a batch.
        batch_limits: how large batches may be, and how much may be waiting (:class:`BatchLimits`).
        background: the course of background responses: as ``batches``, of :class:`BackgroundScenario`.
        choices: how many answers ``n`` may ask for; more are refused, as OpenAI does. ``1``: every ``n`` above it is;
            ``"first"``: it is ignored, as some servers do. Default: 128.

    Attributes:
        port: the port it listens on.
        origin: ``"http://127.0.0.1:<port>"``.
        base_url: ``origin + "/v1"``.

    What it saw is on :attr:`requests`, :attr:`connections`, :attr:`in_flight` and :attr:`max_in_flight`;
    :meth:`wait_for` and :meth:`wait_until` wait for it, so that tests need no sleeping.

    An error raised by a function it was given (``reply``, ``script``) is answered with a 500 that asks not to be
    retried, kept in :attr:`errors`, and raised again at the end of the ``with`` block.
    """

    def __init__(
        self,
        script: ScriptLike = None,
        *,
        reply: Optional[ReplyFunction] = None,
        faults: Optional[Faults] = None,
        limits: Union[Quota, Cap, Iterable[Limit]] = (),
        latency: float = 0.0,
        tls: Optional[ssl.SSLContext] = None,
        port: int = 0,
        batches: ScenarioRule[BatchScenario] = None,
        batch_limits: Optional[BatchLimits] = None,
        background: ScenarioRule[BackgroundScenario] = None,
        choices: ChoicesLimit = MAX_CHOICES,
    ) -> None:
        self._record = ServerRecord()
        model, images = FakeModel(reply, choices), Images(lambda: self.origin)
        batch_limits = batch_limits or BatchLimits()
        self._files = FileStore(max_batch_bytes=batch_limits.file_bytes)
        self._batches = Batches(self._files, Router(model, images), batches, batch_limits)
        self._background = Background(model.routes["POST", "/responses"], background)
        uploads, audio = Uploads(self._files), Audio(reply)
        self._api = Router(model, audio, images, self._files, uploads, self._batches, self._background)
        self._queue = StepQueue()
        self._script = script_of(script)
        self._faults: Script = faults or Script()
        self._limits: List[Limit] = [limits] if isinstance(limits, (Quota, Cap)) else list(limits)
        self._usual: Step = Delay(latency) if latency else Answer()
        self._listener = Listener(self._serve, self._record, tls, port)
        self.port = self._listener.port
        self.origin = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self.base_url = f"{self.origin}/v1"

    @property
    def requests(self) -> List[ReceivedRequest]:
        """The requests so far, in the order of arrival (a copy)."""
        with self._record.condition:
            return list(self._record.requests)

    @property
    def connections(self) -> int:
        """The number of connections that were accepted so far."""
        return self._record.accepted

    @property
    def open_connections(self) -> int:
        """The number of connections that are open now."""
        return self._record.open

    @property
    def in_flight(self) -> int:
        """The number of requests that have arrived and have no answer yet.

        While a step waits (:class:`Delay`, :class:`Stall`, :class:`Drip`), a client that disconnects is noticed, and
        its request no longer counted.
        """
        return self._record.in_flight

    @property
    def max_in_flight(self) -> int:
        """The highest :attr:`in_flight` so far."""
        return self._record.max_in_flight

    @property
    def errors(self) -> List[BaseException]:
        """The errors of the functions that the server was given (a copy)."""
        with self._record.condition:
            return list(self._record.errors)

    @property
    def files(self) -> List[StoredFile]:
        """The files that are stored now: those of uploads and those that batches have written; the oldest first."""
        return self._files.all()

    @property
    def batches(self) -> List[Dict[str, Any]]:
        """The batches as the API's objects, the oldest first.  None of them moves on by that."""
        return self._batches.shown()

    @property
    def background(self) -> List[Dict[str, Any]]:
        """The background responses as the API's objects, the oldest first.  None of them moves on by that."""
        return self._background.shown()

    def advance(self, only: Optional[str] = None) -> int:
        """Move on all batches and background responses by one state, and return how many had not ended.

        Args:
            only: the id of the one that is moved on. Default: all.

        Example, batches that end when the test says so::

            with FakeServer(batches=BatchScenario(polls=None)) as server:
                ...
                while server.advance():
                    pass

        Raises:
            Exception: whatever the function ``reply`` raises for a row; that batch stays in its state.
        """
        moved = self._batches.advance(only) + self._background.advance(only)
        with self._record.condition:
            self._record.condition.notify_all()
        return moved

    def wait_for(self, n_requests: int, timeout: float = 10.0) -> List[ReceivedRequest]:
        """Wait until ``n_requests`` requests have arrived, and return all that have.

        Raises:
            TimeoutError: they had not within ``timeout`` seconds.
        """
        self._record.wait_until(lambda: len(self._record.requests) >= n_requests, timeout, f"{n_requests} requests")
        return self.requests

    def wait_until(self, predicate: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until ``predicate()`` is true; it is called after every event at the server.

        Example::

            server.wait_until(lambda: server.in_flight == 0)

        Raises:
            TimeoutError: it was not within ``timeout`` seconds.
        """
        self._record.wait_until(predicate, timeout)

    def enqueue(self, *steps: Entry) -> None:
        """Add steps for the next requests, before the script's.  None answers as usual."""
        with self._record.condition:
            self._queue.add(steps)

    def set_script(self, script: ScriptLike) -> None:
        """Replace the script, and drop what :meth:`enqueue` has added, from the next request on."""
        new = script_of(script)
        with self._record.condition:
            self._queue = StepQueue()
            self._script = new

    def drop_connections(self) -> None:
        """Close all open connections without notice, as a server does with idle ones; new ones are accepted."""
        self._listener.drop_connections()

    def close(self) -> None:
        """Stop listening, end all connections and waits, and join the threads; a second call does nothing."""
        self._listener.close()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()
        if error is None and self._record.errors:
            raise self._record.errors[0]

    def __repr__(self) -> str:
        state = "closed" if self._listener.closed else f"{self.in_flight} in flight"
        return f"<FakeServer {self.base_url}: {len(self._record.requests)} requests, {state}>"

    def _serve(self, connection: Connection, raw: RawRequest) -> None:
        # Under one lock, so that the n-th request gets the n-th step.
        with self._record.condition:
            now = current_clock().now()
            request = self._record.arrived(raw, connection=connection.number, time=now)
            try:
                entry = self._decide(request, now)
            except BaseException as error:
                entry = self._failed_step(error)
        try:
            actions = self._step(entry, request).actions(request, self._api)
        except BaseException as error:
            actions = self._failed_step(error).actions(request, self._api)
        connection.perform(actions, self._record.finished)

    def _decide(self, request: ReceivedRequest, now: float) -> Entry:
        for limit in self._limits:
            refusal = limit.refusal(now, self._record.in_flight - 1)
            if refusal is not None:
                return refusal
        if self._queue:
            return self._queue.take(request)
        entry = self._script.take(request)
        return self._faults.take(request) if entry is None else entry

    def _step(self, entry: Entry, request: ReceivedRequest) -> Step:
        """Return the step of ``entry``; a function is called here, without the lock."""
        check_entry(entry)
        step = entry if entry is None or isinstance(entry, Step) else entry(request)
        if step is None:
            return self._usual
        if not isinstance(step, Step):
            raise TypeError(f"a function in a script must return a step or None, got {step!r}")
        return step

    def _failed_step(self, error: BaseException) -> Error:
        """Keep an error of a user's function, also an assertion of pytest's, and return the answer about it."""
        self._record.failed(error)
        return Error(500, f"a function given to FakeServer raised {error!r}", headers={"x-should-retry": "false"})
