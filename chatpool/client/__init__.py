"""The public pool."""

from .endpoint import Endpoint
from .json_schema import json_schema
from .one_shot import map  # noqa: A004 - exported as chatpool.map
from .pool import ChatPool
from .stream import ChatStream

__all__ = ["ChatPool", "ChatStream", "Endpoint", "json_schema", "map"]
