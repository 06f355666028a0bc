"""The public pool."""

from .one_shot import map  # noqa: A004 - exported as chatpool.map
from .pool import ChatPool

__all__ = ["ChatPool", "map"]
