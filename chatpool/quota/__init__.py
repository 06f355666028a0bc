"""Limits shared between processes: through a file on one host, through Redis over hosts."""

from .address import parse_scope
from .private import PrivateScope
from .shared import SharedLimit, Slot
from .sharing import Sharing

__all__ = ["PrivateScope", "SharedLimit", "Sharing", "Slot", "parse_scope"]
