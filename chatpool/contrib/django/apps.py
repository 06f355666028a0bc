"""The app: its system checks and commands are there once it stands in INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["ChatPoolConfig"]


class ChatPoolConfig(AppConfig):
    """Settings of the app, as Django reads them."""

    name = "chatpool.contrib.django"
    label = "chatpool"
    verbose_name = "chatpool"

    def ready(self) -> None:
        """Register the system checks; no pool is made."""
        from . import checks  # noqa: F401 - importing registers them
