"""``chatpool_run``: answer the rows of a table, and save the answers in it."""

from __future__ import annotations

from typing import Any, Dict

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, FieldError, ImproperlyConfigured, ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q

from .....batch import BatchResult
from .....batch.signals import sigterm_raises
from .....errors import ChatPoolError, ConfigurationError, JournalBusyError
from ...conf import DEFAULT_ALIAS
from ...pools import pools
from ...querysets import prompt_maker, run_queryset

__all__ = ["Command"]

_SOME_FAILED, _USAGE, _FATAL, _BUSY, _INTERRUPTED = 1, 2, 3, 75, 130  # exit codes, as those of chatpool run
_CONSTANTS = {"True": True, "False": False, "None": None}
_GO_ON = "the same command goes on from here"


class Command(BaseCommand):
    """Answer the rows of a table, and save the answers in it."""

    help = (
        "Answers the rows of a table and saves the answers in it, in batches. Rows whose field --save is filled are "
        "left out, so that the same command goes on where an earlier one ended. Exit codes: 0 all succeeded, 1 some "
        "rows failed, 2 wrong usage or configuration, 3 stopped with rows left, 75 another process uses the journal, "
        "130 interrupted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument("model", metavar="MODEL_LABEL", help="the table, for instance news.Article")
        parser.add_argument(
            "--prompt", required=True, metavar="FIELD|TEMPLATE", help='a field, or a text such as "{title}: {body}"'
        )
        parser.add_argument("--save", required=True, metavar="FIELD", help="the field that gets the answer")
        parser.add_argument(
            "--filter", nargs="+", action="extend", default=[], metavar="K=V", help="conditions, for instance year=2024"
        )
        parser.add_argument("--alias", default=DEFAULT_ALIAS, help="the pool in CHATPOOL (default: default)")
        parser.add_argument("--limit", type=int, metavar="N", help="rows at most")
        parser.add_argument("--batch-size", type=int, default=100, metavar="N", help="saved at a time (default: 100)")
        parser.add_argument("--journal", metavar="PATH", help="a file that keeps each answer until it is saved")
        parser.add_argument("--dry-run", action="store_true", help="say how many rows there are, and send nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the rows.

        Raises:
            CommandError: not every row has an answer.
        """
        try:
            with sigterm_raises(KeyboardInterrupt):  # as Ctrl-C does: what has come is saved
                self._run(options)
        except JournalBusyError as error:
            raise CommandError(str(error), returncode=_BUSY) from error
        except (ConfigurationError, ImproperlyConfigured) as error:
            raise CommandError(str(error), returncode=_USAGE) from error
        except ChatPoolError as error:
            raise CommandError(f"{type(error).__name__}: {error}", returncode=_FATAL) from error
        except KeyboardInterrupt:
            raise CommandError(f"interrupted; {_GO_ON}", returncode=_INTERRUPTED) from None

    def _run(self, options: Dict[str, Any]) -> None:
        queryset = _queryset(options)
        if options["dry_run"]:
            self._show_dry_run(queryset, options)
            return
        result = run_queryset(
            queryset,
            options["prompt"],
            options["save"],
            pool=pools[options["alias"]],
            journal=options["journal"],
            batch_size=options["batch_size"],
            limit=options["limit"],
            progress=None if options["verbosity"] else False,
        )
        if options["verbosity"]:
            self.stdout.write(result.summary())
        _raise_unless_done(result)

    def _show_dry_run(self, queryset: Any, options: Dict[str, Any]) -> None:
        prompt = prompt_maker(queryset, options["prompt"])
        count, first = queryset.count(), queryset.order_by("pk").first()
        count = count if options["limit"] is None else min(count, options["limit"])
        self.stdout.write(f"{count:,} rows would be sent")
        if first is not None:
            self.stdout.write(f"the first: {prompt(first)}")


def _queryset(options: Dict[str, Any]) -> Any:
    """Return the rows without an answer.

    Raises:
        ConfigurationError: there is no such model or field, or a filter is wrong.
    """
    pairs = [condition.partition("=") for condition in options["filter"]]
    for name, separator, _ in pairs:
        if not separator:
            raise ConfigurationError(f"--filter is written NAME=VALUE, got {name!r}")
    label = options["model"]
    if label.count(".") != 1:
        raise ConfigurationError(f"MODEL_LABEL is written app_label.ModelName, got {label!r}")
    try:
        model = apps.get_model(label)
        conditions = {name: _condition(name, value) for name, _, value in pairs}
        return model._default_manager.filter(_without_answer(model, options["save"]), **conditions)
    except (LookupError, TypeError, ValueError, FieldDoesNotExist, FieldError, ValidationError) as error:
        raise ConfigurationError(str(error)) from error


def _condition(name: str, text: str) -> Any:
    """Return the value of a condition, of which a shell has only the text."""
    if name.endswith(("__in", "__range")):
        return text.split(",")
    return _CONSTANTS.get(text, text)


def _without_answer(model: Any, name: str) -> Any:
    empty = Q(**{f"{name}__isnull": True})
    takes_text = getattr(model._meta.get_field(name), "empty_strings_allowed", False)
    return empty | Q(**{name: ""}) if takes_text else empty


def _raise_unless_done(result: BatchResult) -> None:
    if result.fatal is not None or result.pending:
        reason = "" if result.fatal is None else f"{type(result.fatal).__name__}: {result.fatal}; "
        raise CommandError(f"{reason}{result.pending:,} rows are left; {_GO_ON}", returncode=_FATAL)
    if result.failed:
        raise CommandError(f"{result.failed:,} of {result.rows:,} rows failed; {_GO_ON}", returncode=_SOME_FAILED)
