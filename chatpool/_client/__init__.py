"""The public pool."""

from .._structured.json_schema import json_schema
from .endpoint import Endpoint
from .pool import (
    ChatPool,
    map,  # noqa: A004 - exported as chatpool.map
)
from .streams import ChatStream

__all__ = ["ChatPool", "ChatStream", "Endpoint", "json_schema", "map"]
