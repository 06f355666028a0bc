"""Limits shared between processes: through a file on one host, through Redis over hosts."""

from .file import PrivateScope
from .scope import parse_scope
from .shared_limit import SharedLimit, Slot
from .sharing import Sharing

__all__ = ["PrivateScope", "SharedLimit", "Sharing", "Slot", "parse_scope"]
