"""A scope for the processes of one run, gone with it."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import Optional

from .backend import Unavailable
from .places import file_for, open_safely

__all__ = ["PrivateScope"]


class PrivateScope:
    """A scope that nobody else has.

    Attributes:
        name: for ``Limits(scope=)``; None where this user cannot have files for it.
    """

    def __init__(self) -> None:
        name = f"run-{secrets.token_hex(8)}"
        self._folder = file_for(name).parent
        self.name: Optional[str] = name
        try:
            os.close(open_safely(file_for(f"{name}\n")))
        except Unavailable:
            self.name = None

    def close(self) -> None:
        """Remove its files."""
        if self.name is not None:
            for path in self._folder.glob(f"{self.name}_*"):
                with contextlib.suppress(OSError):
                    path.unlink()
