"""``samples=``: runs whose items get several answers each, in as few requests as the server allows.

A :class:`SampledRun` sends no call of an item itself.  It asks for all answers in one call with ``n``, and for what is
missing then, or what ``parse=`` could not use, in further calls, each for as many as the server gives.  The call of the
item ends when all of these have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from .._engine import Call, CallOptions, Engine
from .._structured.samples_review import SamplesReview
from .._wire.response import decode_response
from .._wire.sampling import (
    choices_wanted,
    is_usable,
    places_of,
    refuse_unsampled,
    separate_answers,
    takes_choices,
    with_choices,
    with_seed_of,
)
from ..errors import ChatPoolError, PoolClosedError
from ..types import ChatCompletion, ChatRequest, Outcome
from .run import Run, RunOrigin, unusable_item
from .sampled_item import SampledItem
from .stored_runs import JournalledRetry, JournalledRun, StoredRowsRun

if TYPE_CHECKING:
    from .answer_cache import AnswerCache

__all__ = [
    "JournalledSampledRetry",
    "JournalledSampledRun",
    "KeptAnswers",
    "SampledRetry",
    "SampledRowsRun",
    "SampledRun",
]


@dataclass(frozen=True)
class _Part:
    """Samples of one item that one call is to bring.

    Attributes:
        first: the place of the first, from 0.
        count: how many there are.
        request: the request for them.
        reasks: how often they were asked for again before.
    """

    first: int
    count: int
    request: ChatRequest
    reasks: int = 0


def _are_all(completion: ChatCompletion, count: int) -> bool:
    """Return whether a completion has as many usable answers as it was to bring."""
    choices = completion.choices
    return len(choices) == count and all(map(is_usable, choices))


class _Sampling(Run):
    """A run whose items get several answers.

    Args:
        engine, items, prepare, options, window: as for :class:`Run`.
        samples: how many answers each item gets, at least 2.
        more: further arguments of a class in between.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        options: CallOptions,
        window: int,
        *,
        samples: int,
        **more: Any,
    ) -> None:
        def prepare_sampled(item: Any) -> ChatRequest:
            request = prepare(item)
            refuse_unsampled(request)
            return request

        self._samples = samples
        self._plain_options = options
        self._part_options = replace(options, samples=samples)
        self._review = options.review
        options = replace(options, samples=samples, review=SamplesReview(options.review, samples))
        super().__init__(engine, items, prepare_sampled, options, window, **more)
        self._under_way: Dict[int, Tuple[SampledItem, _Part]] = {}  # by the ids of their calls
        self._runs_here = False

    @property
    def origin(self) -> RunOrigin:
        return super().origin._replace(options=self._plain_options, samples=self._samples)

    def kept_answers(self, lead: Call) -> Optional[ChatCompletion]:
        """Return the answers of an item that an earlier run has brought, None without any."""
        return None

    # -- calls go out -------------------------------------------------------------------------------------

    def _cached_outcome(self, call: Call) -> Optional[Outcome[Any]]:
        return None  # each of its answers is looked up, in _first_calls

    def _calls_of(self, calls: List[Call]) -> List[Call]:
        self._runs_here = self._engine.runs_here()
        return [call for lead in calls for call in self._first_calls(lead)]

    def _first_calls(self, lead: Call) -> List[Call]:
        item = SampledItem(lead, self._samples)
        if self.cache is not None and not self._engine.closed:
            self._look_up(item, self.cache.cache)
        kept = self.kept_answers(lead)
        if kept is not None:
            self._keep(item, kept)
        model, specs = lead.request.model, self._engine.endpoints.specs
        most = max(self._engine.choices.most((spec.name, model)) for spec in specs)
        parts = [part for gap in item.missing() for part in self._parts(item, *gap, most)]
        calls = [] if item.error is not None else self._make_calls(item, parts)
        item.outstanding = len(calls)
        if not calls:
            super().deliver(lead, item.outcome(self.now()))
        return calls

    def _keep(self, item: SampledItem, completion: ChatCompletion) -> None:
        """Take over the answers that an earlier run has brought, if they are accepted in this one.

        What the cache has of them is the same, and in its places.
        """
        request = item.lead.request
        accepted = [
            answer
            for answer in separate_answers(request, completion)[: self._samples]
            if self._review is None or self._review(request, answer, 0).value is not None
        ]
        if len(accepted) > sum(answer is not None for answer in item.answers):
            item.note_usage(completion)
            item.answers = [None] * self._samples
            for place, answer in zip(places_of(request, accepted, self._samples), accepted):
                item.answers[place] = answer

    def _look_up(self, item: SampledItem, cache: AnswerCache) -> None:
        """Take the answers that the cache has; where nothing is sent, the others are errors."""
        lead = item.lead
        key, lead.cache_key = lead.cache_key, None  # the answers are kept, and not all of them as one
        if key is not None:
            item.keys = cache.keys.of_samples(lead.request, self._plain_options, key.occurrence, self._samples)
        for call in self._make_calls(item, self._parts(item, 0, self._samples, most=1)):
            _, part = self._under_way.pop(call.id)
            outcome = cache.outcome_of(call)
            if outcome is not None:
                item.note(call, outcome)
                item.answers[part.first] = outcome.value

    def _parts(self, item: SampledItem, first: int, count: int, most: int) -> List[_Part]:
        """Return the parts of samples that are missing, each for one call, of at most ``most`` where there is ``n``."""
        request, end = item.lead.request, first + count
        # Choices cannot fall back one by one.
        step = most if takes_choices(request) and not self._plain_options.fallbacks else 1
        counts = {start: min(step, end - start) for start in range(first, end, step)}
        return [
            _Part(start, size, with_seed_of(with_choices(request, size) if size > 1 else request, start))
            for start, size in counts.items()
        ]

    def _make_calls(self, item: SampledItem, parts: List[_Part]) -> List[Call]:
        lead = item.lead
        calls: List[Call] = []
        for part in parts:
            # Of several answers in one each is reviewed apart, and none asks for the others again.
            options = self._part_options if part.count == 1 else replace(self._part_options, review=None)
            try:
                call = self._engine.make_call(part.request, options, self, index=lead.index, item=lead.item)
            except Exception as error:
                item.error = item.error or unusable_item(lead.index, error)
                break
            if part.count > 1 and self._engine.never_fits(call):
                calls += self._make_calls(item, self._parts(item, part.first, part.count, (part.count + 1) // 2))
                continue
            call.reasks = part.reasks
            call.cache_key = item.keys[part.first] if part.count == 1 and item.keys else None
            self._under_way[call.id] = item, part
            calls.append(call)
        return calls

    def _send_further(self, calls: List[Call]) -> None:
        if not self._runs_here:
            self._engine.submit_further(calls)
            return
        try:
            self._engine.submit(calls)
        except PoolClosedError as error:
            for call in calls:
                self._end_unsubmitted(call, call.outcome(self.now(), error=error.copied("not sent: ")))

    def _end_unsubmitted(self, call: Call, outcome: Outcome[Any]) -> None:
        self.deliver(call, outcome)  # what other calls have brought of its item is kept

    def refusal(self, call: Call) -> Optional[ChatPoolError]:
        reason = super().refusal(call)
        if reason is not None or call.attempts:
            return reason
        entry = self._under_way.get(call.id)
        error = None if entry is None else entry[0].error  # of another answer, without which the item has failed
        return None if error is None else error.copied("not sent: ")

    # -- outcomes come in ---------------------------------------------------------------------------------

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        entry = self._under_way.pop(call.id, None)
        if entry is None:  # it shares the outcome of an identical item
            super().deliver(call, outcome)
            return
        item, part = entry
        item.note(call, outcome)
        if self.cache is not None:
            self.cache.keep(call, outcome)
        further = self._take_answers(item, part, call, outcome) if outcome.ok else []
        reason = self._reason_not_to_send(item.lead.request)
        if further and reason is not None:
            item.error = item.error or reason.copied("not sent: ")
        calls = self._make_calls(item, further) if item.error is None else []
        with item.lock:
            item.outstanding += len(calls) - 1
            is_over = not item.outstanding
        if is_over:
            super().deliver(item.lead, item.outcome(self.now()))
        elif calls:
            self._send_further(calls)

    def _take_answers(self, item: SampledItem, part: _Part, call: Call, outcome: Outcome[Any]) -> List[_Part]:
        """Put the answers of a call in their places; return the parts that are to be asked for now."""
        value: Any = outcome.value
        self._engine.choices.note(call.upstream_key, choices_wanted(call.request), len(value.choices))
        if self._review is None and _are_all(value, part.count) and part.count == self._samples:
            item.whole = value
            if not item.keys:
                return []
        if not outcome.cached:
            item.note_usage(value)
        if call.options.review is not None:  # it was reviewed, and asked for again, as a call of its own
            item.answers[part.first] = value
            return []
        answers = separate_answers(call.request, value)[: part.count]
        further = []
        for place, answer in enumerate(answers, part.first):
            again = self._reviewed(item, place, answer)
            if again is not None:
                further.append(again)
        if item.keys and part.count > 1 and self.cache is not None:
            places = enumerate(answers, part.first)
            came = [(item.keys[place], answer) for place, answer in places if item.answers[place] is not None]
            self.cache.cache.keep_samples(call, came)
        most = self._engine.choices.most(call.upstream_key)
        return further + self._parts(item, part.first + len(answers), part.count - len(answers), most)

    def _reviewed(self, item: SampledItem, place: int, answer: ChatCompletion) -> Optional[_Part]:
        """Put an answer in its place; return the part that asks for it again if it is of no use, or note the error."""
        if self._review is None:
            item.answers[place] = answer
            return None
        request = with_seed_of(item.lead.request, place)
        review = self._review(request, answer, 0)
        if review.request is not None:
            return _Part(place, 1, review.request, reasks=1)
        if review.error is not None:
            item.error = item.error or review.error
        else:
            item.answers[place] = review.value
        return None

    def keep_background(self, call: Call, facts: Mapping[str, str]) -> bool:
        """Return False: a journal knows one response of an item, and this has several."""
        return False

    def after_fork_in_child(self, call: Call) -> None:
        entry = self._under_way.pop(call.id, None)
        super().after_fork_in_child(call if entry is None else entry[0].lead)


class SampledRun(_Sampling):
    """A run over items that keeps nothing."""


class SampledRetry(_Sampling):
    """A retry of the failed items of such a run: its items are their outcomes."""

    def kept_answers(self, lead: Call) -> Optional[ChatCompletion]:
        first: Outcome[Any] = lead.item
        return None if first.error is None else first.error.samples


class JournalledSampledRun(_Sampling, JournalledRun):
    """A run with a journal, which has all samples of an item in one record."""

    def kept_answers(self, lead: Call) -> Optional[ChatCompletion]:
        return self.recorded_samples(lead)


class JournalledSampledRetry(SampledRetry, JournalledRetry):
    """A retry of the failed items of a run with a journal."""


KeptAnswers = Callable[[Any], Any]
"""Returns the JSON of the samples of a row that an earlier run has brought, None without any."""


class SampledRowsRun(_Sampling, StoredRowsRun):
    """A run over rows of a batch.

    Args:
        arguments, more: as for :class:`StoredRowsRun`, and ``samples``.
        kept: knows the samples of rows that have failed in part; None where nothing does.
    """

    def __init__(self, *arguments: Any, kept: Optional[KeptAnswers] = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._kept_of = kept

    def kept_answers(self, lead: Call) -> Optional[ChatCompletion]:
        body = None if self._kept_of is None else self._kept_of(lead.item)
        value = None if body is None else decode_response(lead.request, body, None)
        return value if isinstance(value, ChatCompletion) else None
