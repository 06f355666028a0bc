"""``run_queryset``: from the rows of a table to answers in it, in batches, going on where it was interrupted."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any, Callable, Iterator, List, Optional, Tuple, Union

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models, router, transaction
from django.db.models.query import ModelIterable

from ... import ChatPool, ConfigurationError, Outcome
from ..._client.batch_support import max_workers_of, state_of
from ...batch import BatchResult
from ...batch.template import Template
from ...config import positive_int
from .conf import DEFAULT_ALIAS
from .pools import pools

__all__ = ["Prompt", "Save", "prompt_maker", "run_queryset"]

Prompt = Union[str, Callable[[Any], Any]]
Save = Union[str, Callable[[List[Tuple[Any, Outcome[Any]]]], Any]]

_PAGE_ROWS = 256  # read at a time
_UNSENT_ROWS = 1000  # one after the other, from which on nothing more is read: no call is sent any more
_FORMS_OF_JSON = (str, bool, int, float, list, dict, type(None))


def run_queryset(
    queryset: Any,
    prompt: Prompt,
    save: Save,
    *,
    pool: Optional[ChatPool] = None,
    journal: Union[str, os.PathLike[str], None] = None,
    batch_size: int = 100,
    limit: Optional[int] = None,
    **options: Any,
) -> BatchResult:
    """Answer every row of a QuerySet, and save the answers in batches, each in a transaction.

    Rows are read by primary key, some hundred at a time, so that no cursor stays open and memory does not grow.  A row
    is done when its answer is in the table: let the queryset leave out such rows (``filter(summary="")``), and the same
    call goes on where an earlier one ended, even one that was killed.  What was answered and not saved by then is sent
    again, at most ``max_workers + batch_size`` rows; with a journal at most ``max_workers``.

    Args:
        queryset: model instances, in no order but that of their primary keys, and no slice.
        prompt: the name of a field; a template with the names of fields in it, ``"{title}: {author__name}"``; or a
            function of the instance that returns an item of :meth:`chatpool.ChatPool.map`.
        save: the name of a field that gets the text, or with ``parse=`` what that returns, by ``bulk_update`` (no
            ``save()`` and no signal). A row whose field does not take the answer, too long or no number, has failed.
            Or a function that is called in a transaction with a list of pairs (instance, :class:`~chatpool.Outcome`),
            failures included.
        pool: makes the calls. Default: ``pools["default"]``.
        journal: a file that keeps each answer as soon as it is there, by primary key and request. A row that failed for
            good is not sent again with it.
        batch_size: rows that are saved at a time.
        limit: rows at most. Default: all.
        options: other arguments of :meth:`chatpool.ChatPool.as_completed`: ``parse``, ``progress``, ``run_timeout``,
            ``model``, ``temperature`` ...

    Returns:
        A :class:`chatpool.batch.BatchResult`: ``pending`` rows are left if an error has ended the run (``fatal``).

    Raises:
        ConfigurationError: before anything is sent, the queryset has another order, is a slice or holds no instances,
            or a field is missing. It is a ValueError.
        TypeError: ``prompt`` or ``save`` is neither a str nor a function.
        Exception: that of ``save``; its batch is not saved.
    """
    _check_queryset(queryset)
    positive_int("batch_size", batch_size)
    rows = _Rows(queryset, limit)
    pool = pools[DEFAULT_ALIAS] if pool is None else pool
    saver = _Saver(queryset, save, is_parsed=options.get("parse") is not None)
    if journal is not None:
        options.update(journal=journal, key=lambda row: str(row.pk))
    else:
        options.setdefault("buffersize", max_workers_of(pool))  # what is read ahead is sent again after a kill
    outcomes: Any = pool.as_completed(rows, prompt=prompt_maker(queryset, prompt), **options)
    result = BatchResult(journal=None if journal is None else os.fspath(journal))
    started_at = time.monotonic()
    try:
        with outcomes:
            _save_in_batches(outcomes, rows, saver, result, batch_size)
    finally:
        result.fatal, result.elapsed = outcomes._run.fatal, time.monotonic() - started_at
        result.rows = max(len(rows), result.succeeded + result.failed)
        result.pending = result.rows - result.succeeded - result.failed
    return result


def _save_in_batches(
    outcomes: Iterator[Outcome[Any]], rows: _Rows, saver: _Saver, result: BatchResult, batch_size: int
) -> None:
    batch: List[Outcome[Any]] = []
    unsent = 0
    try:
        for outcome in outcomes:
            if state_of(outcome) is None:  # cancelled, or not sent
                unsent += 1
                rows.ended = unsent >= _UNSENT_ROWS
                continue
            unsent = 0
            batch.append(outcome)
            if len(batch) >= batch_size:
                full, batch = batch, []
                _save(full, saver, result)
    finally:  # after Ctrl-C too
        _save(batch, saver, result)


def _save(batch: List[Outcome[Any]], saver: _Saver, result: BatchResult) -> None:
    if not batch:
        return
    errors = [error for error in saver([(outcome.item, outcome) for outcome in batch]) if error is not None]
    result.failed += len(errors)
    result.succeeded += len(batch) - len(errors)
    result.causes = dict(Counter(result.causes) + Counter(type(error).__name__ for error in errors))
    result.usage = sum((outcome.usage for outcome in batch if outcome.usage is not None), result.usage)


def _check_queryset(queryset: Any) -> None:
    """Refuse what cannot be read by primary key.

    Raises:
        TypeError: it is no QuerySet.
        ConfigurationError: it cannot be.
    """
    if not isinstance(queryset, models.QuerySet):
        raise TypeError(f"queryset must be a QuerySet, such as Article.objects.all(), got {type(queryset).__name__}")
    query, key = queryset.query, queryset.model._meta.pk
    problem = None
    if query.is_sliced:
        problem = "is a slice: pass limit= for a number of rows"
    elif query.combinator:
        problem = f"is a {query.combinator} of others: use | or filter()"
    elif not issubclass(queryset._iterable_class, ModelIterable):
        problem = "holds no instances but values: leave out values(), and use only() to read fewer fields"
    elif query.extra_order_by or not {*query.order_by} <= {"pk", key.name, key.attname}:
        problem = "has an order: rows are read by primary key, leave out order_by()"
    if problem is not None:
        raise ConfigurationError(f"queryset {problem}")


class _Rows:
    """Instances in the order of their primary keys, read in pages; it has their number as its length.

    Attributes:
        ended: whether nothing more is to be read.
    """

    def __init__(self, queryset: Any, limit: Optional[int]) -> None:
        self._queryset = queryset.order_by("pk")
        self._limit = None if limit is None else positive_int("limit", limit)
        self._count: int = queryset.order_by().count()
        self.ended = False

    def __len__(self) -> int:
        return self._count if self._limit is None else min(self._count, self._limit)

    def __iter__(self) -> Iterator[Any]:
        left, page = self._limit, self._queryset
        while not self.ended:
            size = _PAGE_ROWS if left is None else min(_PAGE_ROWS, left)
            rows = list(page[:size])
            yield from rows
            left = None if left is None else left - len(rows)
            if len(rows) < size or left == 0:
                return
            page = self._queryset.filter(pk__gt=rows[-1].pk)


def prompt_maker(queryset: Any, prompt: Prompt) -> Callable[[Any], Any]:
    """Return the function that makes an item of an instance.

    Raises:
        TypeError: ``prompt`` is neither a str nor a function.
        ConfigurationError: it is a template with a mistake, or the model has no such field.
    """
    if callable(prompt):
        return prompt
    if not isinstance(prompt, str):
        raise TypeError(f"prompt must be a field, a template or a function of the instance, got {prompt!r}")
    if "{" not in prompt:
        _check_field(queryset, "prompt", prompt)
        return lambda row: _text(_value(row, prompt))
    template = Template(prompt)
    for name in template.fields:
        _check_field(queryset, "prompt", name)
    return lambda row: template.fill(
        {name: _filled_in(_value(row, name)) for name in template.fields}, may_be_empty=True
    )


def _check_field(queryset: Any, argument: str, name: str) -> None:
    model, first = queryset.model, name.partition("__")[0]
    if not hasattr(model, first) and first not in queryset.query.annotations:
        names = ", ".join(field.name for field in model._meta.get_fields() if field.concrete)
        raise ConfigurationError(f"{argument}: {model.__name__} has no field {first!r}; it has {names}")


def _value(row: Any, name: str) -> Any:
    """Return the value of a field; ``author__name`` is that of a related row, None where there is none."""
    for part in name.split("__"):
        if row is None:
            return None
        row = getattr(row, part)
    return row


def _filled_in(value: Any) -> Any:
    return "" if value is None else _text(value)


def _text(value: Any) -> Any:
    """Return a value as it is if it is a text or has a form in JSON, else (a date, a UUID) as a text."""
    return value if isinstance(value, _FORMS_OF_JSON) else str(value)


class _Saver:
    """Saves a batch, in a transaction of the database that the rows are written to.

    Args:
        queryset: the rows.
        save: as in :func:`run_queryset`.
        is_parsed: whether a field gets what ``parse=`` has returned.

    Raises:
        TypeError: ``save`` is neither a str nor a function.
        ConfigurationError: the model has no such field that can be written.
    """

    def __init__(self, queryset: Any, save: Save, *, is_parsed: bool) -> None:
        self._model = queryset.model
        self._database = queryset._db or router.db_for_write(queryset.model)
        self._is_parsed = is_parsed
        self._save: Any = save
        self._field: Any = None if callable(save) else self._checked_field(save)

    def _checked_field(self, name: Any) -> Any:
        if not isinstance(name, str):
            raise TypeError(f"save must be the name of a field, or a function of pairs, got {name!r}")
        try:
            field = self._model._meta.get_field(name)
        except FieldDoesNotExist:
            field = None
        if field is None or not field.concrete or field.many_to_many or field.primary_key:
            raise ConfigurationError(f"save: {self._model.__name__} has no field {name!r} that can be written")
        return field

    def __call__(self, pairs: List[Tuple[Any, Outcome[Any]]]) -> List[Optional[Exception]]:
        """Save a batch; return the error of each row, None for one that is done."""
        with transaction.atomic(using=self._database):
            if self._field is None:
                self._save(pairs)
                return [outcome.error for _, outcome in pairs]
            errors = [outcome.error or self._set(row, outcome.value) for row, outcome in pairs]
            done = [row for (row, _), error in zip(pairs, errors) if error is None]
            self._model._base_manager.using(self._database).bulk_update(done, [self._field.name])
            return errors

    def _set(self, row: Any, answer: Any) -> Optional[Exception]:
        """Set the field of a row; return the error if it does not take the answer, which must not fail the others."""
        value = answer.parsed if self._is_parsed else answer.text
        try:
            setattr(row, self._field.name, self._field.clean(value, row))
        except (ValidationError, TypeError, ValueError) as error:
            return error
        return None
