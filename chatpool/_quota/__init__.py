"""Limits shared between processes: through a file on one host, through Redis over hosts."""

from .file import PrivateScope
from .scope import parse_scope
from .shared_limit import Reservation, SharedLimit
from .sharing import Sharing

__all__ = ["PrivateScope", "Reservation", "SharedLimit", "Sharing", "parse_scope"]
