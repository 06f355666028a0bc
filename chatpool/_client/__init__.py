"""The public pool."""

from .endpoint import Endpoint
from .pool import (
    ChatPool,
    map,  # noqa: A004 - exported as chatpool.map
)
from .streams import ChatStream

__all__ = ["ChatPool", "ChatStream", "Endpoint", "map"]
