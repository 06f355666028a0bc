"""The methods of a pool that make many calls."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

from ..config import RetryPolicyLike, TimeoutLike
from ..errors import ChatPoolError
from ..observe.progress import Progress
from ..types import ChatCompletion, ChatRequest, Item, Outcome, Results
from ..wire import embedding_request
from .base import PoolBase
from .call_settings import CallSettings
from .consume import collect
from .failure_limit import MaxFailures
from .options import RequestMaker, body_fields
from .parsing import Parse
from .review import Accept
from .runs import JournalPath, RunSettings, start_packed
from .second_try import failed_of, fill, request_of, run_settings_of, settings_of

__all__ = ["BulkCalls"]


class BulkCalls(PoolBase):
    """``map``, ``imap``, ``as_completed`` and ``embed``."""

    def map(
        self,
        items: Iterable[Any],
        *,
        prompt: Optional[Callable[[Any], Item]] = None,
        progress: Progress = None,
        on_error: str = "none",
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        journal: Optional[JournalPath] = None,
        dedupe: bool = False,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        parse: Optional[Parse] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> Results:
        """Answer many items in parallel.

        Args:
            items: any iterable of items (see :meth:`chat`), or of anything with ``prompt``. It is read in the
                calling thread, a bounded number of items ahead.
            prompt: a function that makes an item of a row; ``Outcome.item`` is then the row.
            progress: None shows a bar on a terminal or in a notebook; True, False, or a dict of tqdm's options.
            on_error: what a failed item leaves in its slot: ``"none"`` None (and one warning in the log),
                ``"return"`` its error; ``"raise"`` cancels the run at the first failure and raises it.
            run_timeout: seconds for the whole run; what is unfinished then fails with DeadlineExceededError.
            max_failures: how many items may fail before the run ends: a number of them, or a share (0.1) of those that
                have ended, looked at from the 20th on. ``"same"``: it ends when the server refuses the first 50 in the
                same words, each for a fault of its own, as it does where a parameter is misspelt. None: nothing ends
                it. What ended it is on ``.fatal``, and in the slots of the items that were not sent.
            journal: a file that keeps every outcome before it is given out. With the same file and the same items a
                later run goes on where this one ended, however it ended: an item with an answer, or with a failure
                that would only repeat itself, is not sent again.
            dedupe: whether items that make the same request share one answer: it is sent once, and the others get
                a copy (with ``attempts`` 0 and no tokens of their own), a failure as well. Keeps every answer in
                memory until the run ends.
            timeout, retry, headers, query, priority, extra_body, system, params: as in :meth:`chat`.
            parse, max_reasks, accept, collect_stream: as in :meth:`chat`.

        Returns:
            A list of :class:`~chatpool.ChatCompletion` in input order, with ``.outcomes``, ``.failures``,
            ``.usage`` and ``.elapsed``. It is as long as the input, whatever happens: after a fatal error (a
            refused key, no credit left) nothing new is sent, and the remaining slots carry the reason.

        Raises:
            ChatPoolError: with ``on_error="raise"``; ``.results`` holds what was done.
            KeyboardInterrupt: the run is cancelled, the pool stays usable; ``.results`` holds what was done.
            TypeError: ``items`` is one item instead of many.
        """
        settings = RunSettings(
            prompt, progress, on_error, run_timeout, journal=journal, dedupe=dedupe, max_failures=max_failures
        )
        make = RequestMaker(self._defaults, system, body_fields("map", extra_body, params))
        how = self._how(timeout, retry, headers, query, priority).reviewed(parse, max_reasks, accept)
        how = how.collected(collect_stream)
        return self._collect(items, make, settings, how)

    def imap(
        self,
        items: Iterable[Any],
        *,
        prompt: Optional[Callable[[Any], Item]] = None,
        progress: Progress = None,
        buffersize: Optional[int] = None,
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        journal: Optional[JournalPath] = None,
        dedupe: bool = False,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        parse: Optional[Parse] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> Iterator[Outcome[ChatCompletion]]:
        """Answer many items lazily, in input order; the input may be endless.

        Args:
            buffersize: how many items may be read ahead of those consumed.
                Default ``max(1000, 10 * max_workers)``.
            items, prompt, progress, run_timeout, max_failures, journal, dedupe: as in :meth:`map`.
            timeout, retry, headers, query, priority, extra_body, system, params: as in :meth:`chat`.
            parse, max_reasks, accept, collect_stream: as in :meth:`chat`.

        Returns:
            An iterator of :class:`~chatpool.Outcome`. Leaving it early (``break``, an exception) cancels the rest.
        """
        settings = RunSettings(
            prompt,
            progress,
            run_timeout=run_timeout,
            buffersize=buffersize,
            journal=journal,
            dedupe=dedupe,
            max_failures=max_failures,
        )
        make = RequestMaker(self._defaults, system, body_fields("imap", extra_body, params))
        how = self._how(timeout, retry, headers, query, priority).reviewed(parse, max_reasks, accept)
        how = how.collected(collect_stream)
        return self._lazy(items, make, settings, how, in_order=True)

    def as_completed(
        self,
        items: Iterable[Any],
        *,
        prompt: Optional[Callable[[Any], Item]] = None,
        progress: Progress = None,
        buffersize: Optional[int] = None,
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        journal: Optional[JournalPath] = None,
        dedupe: bool = False,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        system: Optional[str] = None,
        parse: Optional[Parse] = None,
        max_reasks: Optional[int] = None,
        accept: Optional[Accept] = None,
        collect_stream: bool = False,
        **params: Any,
    ) -> Iterator[Outcome[ChatCompletion]]:
        """Answer many items lazily, each :class:`~chatpool.Outcome` as soon as it is there; ``.index`` tells its place.

        Arguments and end as in :meth:`imap`.
        """
        settings = RunSettings(
            prompt,
            progress,
            run_timeout=run_timeout,
            buffersize=buffersize,
            journal=journal,
            dedupe=dedupe,
            max_failures=max_failures,
        )
        make = RequestMaker(self._defaults, system, body_fields("as_completed", extra_body, params))
        how = self._how(timeout, retry, headers, query, priority).reviewed(parse, max_reasks, accept)
        how = how.collected(collect_stream)
        return self._lazy(items, make, settings, how, in_order=False)

    def retry(
        self,
        results: Results,
        *,
        progress: Progress = None,
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
    ) -> Results:
        """Send what has failed in a run once more, as it was sent before, and put what comes of it into its places.

        Args:
            results: what :meth:`map` or :meth:`embed` has returned, or an exception's ``.results``. It is changed:
                its values and outcomes, whose history, tokens and seconds are those of both times.
            progress, run_timeout, max_failures: as in :meth:`map`.
            timeout, retry: as in :meth:`chat`. Default: those of the run. What parses and accepts answers, ``dedupe``
                and the journal are the run's too, unless ``results`` were pickled or copied in between; headers and
                URL parameters are this pool's.

        Returns:
            ``results``, whose ``fatal`` tells how this time ended. Nothing is sent if nothing has failed.

        Raises:
            TypeError: ``results`` are none of a run.
            KeyboardInterrupt: as from :meth:`map`; what came before is in its places.
        """
        failed = failed_of(results)
        settings = RunSettings(None, progress, "return", run_timeout, max_failures=max_failures)
        settings = run_settings_of(results, settings)
        how = settings_of(results, self._how(timeout, retry), timed=timeout is not None, retried=retry is not None)
        again: Optional[Results] = None
        shows_errors = any(isinstance(results[outcome.index], ChatPoolError) for outcome in failed)
        try:
            again = self._send_again(results, failed, settings, how) if failed else None
        except BaseException as error:
            again = getattr(error, "results", None)
            with contextlib.suppress(Exception):  # a frozen exception takes no attribute
                error.results = results  # type: ignore[attr-defined]  # as map does
            raise
        finally:
            fill(results, again, shows_errors=shows_errors)
        return results

    def _send_again(
        self, results: Results, failed: List[Outcome[Any]], settings: RunSettings, how: CallSettings
    ) -> Results:
        send = self._collect_packed if results._origin is not None and results._origin.packed else self._collect
        return send(failed, request_of(results), settings, how)

    def embed(
        self,
        text: Union[str, Sequence[str]],
        *,
        prompt: Optional[Callable[[Any], str]] = None,
        progress: Progress = None,
        on_error: str = "none",
        run_timeout: Optional[float] = None,
        max_failures: MaxFailures = "same",
        dedupe: bool = False,
        max_pack: Optional[int] = None,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
        extra_body: Optional[Mapping[str, Any]] = None,
        **params: Any,
    ) -> Any:
        """The vector of a text, or the vectors of many: as many texts go out in one request as the API takes.

        Args:
            text: a str, or an iterable of them (then this is a run; see :meth:`map` for its keywords).
            prompt: makes the text of a row.
            progress, on_error, run_timeout, max_failures, dedupe: as in :meth:`map`; for many texts only. With
                ``dedupe`` each text goes out in a request of its own.
            max_pack: how many texts go out in one request at most; for many texts only. Default: 2,048, and about
                300,000 tokens, as OpenAI takes them; less once the server has shown that it takes less.
            timeout, retry, headers, query: as in :class:`ChatPool`, for this call.
            priority: as in :meth:`chat`.
            extra_body, params: body fields, for instance ``model=`` or ``dimensions=``.

        Returns:
            ``list[float]`` for a str; :class:`~chatpool.Results` of ``list[float]`` for many, one outcome per text.
            A request that the server finds too large, in which it refuses one text, that meets a 500 or a time-out
            twice, or whose answer lacks vectors, is sent again in parts. A text whose vector has NaN or an infinity
            in it has failed.
        """
        extra = body_fields("embed", extra_body, params)
        how = self._how(timeout, retry, headers, query, priority)

        def make(one: Any) -> ChatRequest:
            return embedding_request(one, model=self._defaults.model, defaults=self._defaults.body, extra=extra)

        settings = RunSettings(
            prompt, progress, on_error, run_timeout, dedupe=dedupe, max_pack=max_pack, max_failures=max_failures
        )
        if isinstance(text, str):
            return self._wait(text, make(text), how)
        if dedupe:
            return self._collect(text, make, settings, how)
        return self._collect_packed(text, make, settings, how)

    def _collect_packed(
        self, texts: Iterable[Any], make: Callable[[Any], ChatRequest], settings: RunSettings, how: CallSettings
    ) -> Results:
        started = self._core.engine.clock.now()
        run, bar = start_packed(self._core, texts, make, settings, how)
        return collect(run, window=1, on_error=settings.on_error, bar=bar, started=started)
