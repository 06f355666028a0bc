"""``chatpool_check``: look at everything that the calls of a pool depend on."""

from __future__ import annotations

from typing import Any, List

from django.core import checks
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ....._client.diagnostics import UNKNOWN, WRONG, Finding, findings, state_of_all
from ...conf import InvalidPoolError
from ...pools import pools

__all__ = ["Command"]

_USAGE, _UNKNOWN, _FATAL = 2, 1, 3  # exit codes, as those of the command chatpool check
_TIMEOUT_SECONDS = 30.0


class Command(BaseCommand):
    """Check the settings of the pools, and with ``--live`` their servers by a call."""

    help = (
        "Checks the setting CHATPOOL. With --live, each server is asked for its models and for one answer. Exit codes: "
        "0 nothing is wrong, 1 whether calls are answered could not be found out, 2 a setting is wrong, 3 a call fails."
    )
    requires_system_checks = ()  # it shows them itself

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of the command."""
        parser.add_argument("--alias", metavar="ALIAS", help="this pool only (default: all)")
        parser.add_argument("--live", action="store_true", help="make a call, which may cost something")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print what is found.

        Raises:
            CommandError: something is wrong, or could not be found out.
        """
        self._check_settings()
        aliases = list(pools) if options["alias"] is None else [options["alias"]]
        found = [finding for alias in aliases for finding in self._check_pool(alias, live=options["live"])]
        state = state_of_all(found)
        if state == WRONG:
            raise CommandError("something is wrong", returncode=_FATAL)
        if state == UNKNOWN:
            raise CommandError("whether calls are answered could not be found out", returncode=_UNKNOWN)

    def _check_settings(self) -> None:
        messages = checks.run_checks(tags=["chatpool"], include_deployment_checks=True)
        for message in messages:
            self.stdout.write(str(message))
        if any(message.is_serious() for message in messages):
            raise CommandError("the setting CHATPOOL is wrong", returncode=_USAGE)

    def _check_pool(self, alias: str, *, live: bool) -> List[Finding]:
        try:
            pool = pools[alias]
        except InvalidPoolError as error:
            raise CommandError(str(error), returncode=_USAGE) from error
        self.stdout.write(f"{alias}: {pool!r}")
        found = []
        for finding in findings(pool, timeout=_TIMEOUT_SECONDS) if live else ():
            self.stdout.write("\n".join(finding.lines()))
            found.append(finding._replace(name=f"{alias}: {finding.name}"))
        return found
