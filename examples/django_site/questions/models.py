"""Lists of questions, and their answers."""

import uuid

from django.db import models
from django.db.models import Count, Q, Sum
from django.utils import timezone


class QuestionList(models.Model):
    """A visitor's list.  Who has its link may see it: the id cannot be guessed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created = models.DateTimeField(auto_now_add=True)
    ended = models.DateTimeField(null=True)

    @property
    def seconds(self):
        """Seconds from its beginning to its end, or until now."""
        return ((self.ended or timezone.now()) - self.created).total_seconds()

    @property
    def title(self):
        """The first question."""
        first = self.questions.first()
        return first.text if first else ""

    def figures(self):
        """Return how many questions there are, how many of them are answered and failed, and their tokens."""
        is_failed, is_answered = Q(state=Question.State.FAILED), Q(state=Question.State.ANSWERED)
        found = self.questions.aggregate(
            total=Count("pk"),
            failed=Count("pk", filter=is_failed),
            answered=Count("pk", filter=is_answered),
            tokens=Sum("tokens", default=0),
        )
        return {**found, "ended": found["failed"] + found["answered"]}

    def causes(self):
        """Return the kinds of failures with their numbers, the most frequent first."""
        failed = self.questions.filter(state=Question.State.FAILED)
        return failed.values("error").annotate(count=Count("pk")).order_by("-count", "error")


class Question(models.Model):
    """A question of a list: waiting, answered or failed."""

    class State(models.TextChoices):
        """Where it stands."""

        WAITING = "waiting"
        ANSWERED = "answered"
        FAILED = "failed"

    list = models.ForeignKey(QuestionList, models.CASCADE, related_name="questions")
    number = models.PositiveIntegerField()
    text = models.TextField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    answer = models.TextField(default="")
    error = models.CharField(max_length=100, default="")
    tokens = models.PositiveIntegerField(default=0)
    seconds = models.FloatField(null=True)
    ended = models.DateTimeField(null=True)

    class Meta:
        """Questions stand in the order of their list."""

        ordering = ["number"]  # noqa: RUF012 - Django's form
        constraints = [models.UniqueConstraint(fields=["list", "number"], name="number_in_list")]  # noqa: RUF012
