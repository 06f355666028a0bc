"""Lists are answered in the background: each by one thread of this process, which keeps its rows up to date."""

import logging
import threading

from django.db import connection
from django.utils import timezone

from chatpool import CallCancelledError
from chatpool.contrib.django import pool

from .models import Question, QuestionList

logger = logging.getLogger(__name__)
_running = set()
_lock = threading.Lock()


def go_on(pk):
    """Answer what is not yet answered of a list, unless a thread is at it already.

    Called whenever somebody looks at a list that has not ended: so one goes on whose process was restarted.
    """
    with _lock:
        if pk in _running:
            return
        _running.add(pk)
    threading.Thread(target=_run, args=(pk,), name=f"list-{pk}", daemon=True).start()


def log_failure(outcome):
    """Tell the log why a question was not answered: visitors see the kind of the error only."""
    if outcome.error is not None and not isinstance(outcome.error, CallCancelledError):
        logger.warning("%s: %s", type(outcome.error).__name__, outcome.error)


def _run(pk):
    try:
        waiting = list(Question.objects.filter(list=pk, state=Question.State.WAITING))
        # Below the questions of visitors who wait for their page.
        for outcome in pool.as_completed(waiting, prompt=lambda question: question.text, priority=-1, progress=False):
            _save(outcome)
        QuestionList.objects.filter(pk=pk, ended=None).update(ended=timezone.now())
    except Exception:  # the next look at the list begins again
        logger.exception("the run of a list has ended early")
    finally:
        connection.close()  # Django closes those of requests only
        with _lock:
            _running.discard(pk)


def _save(outcome):
    log_failure(outcome)
    question = outcome.item
    if outcome.ok:
        question.state, question.answer = Question.State.ANSWERED, outcome.value.text or ""
    else:
        question.state, question.error = Question.State.FAILED, type(outcome.error).__name__
    question.tokens = outcome.usage.total_tokens if outcome.usage else 0
    question.seconds, question.ended = outcome.elapsed, timezone.now()
    question.save(update_fields=["state", "answer", "error", "tokens", "seconds", "ended"])
