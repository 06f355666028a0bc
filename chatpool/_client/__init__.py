"""The public pool."""

from .._wire.media import speech, transcription, translation
from .endpoint import Endpoint
from .pool import (
    ChatPool,
    map,  # noqa: A004 - exported as chatpool.map
)
from .streams import ChatStream
from .time_budget import deadline

__all__ = ["ChatPool", "ChatStream", "Endpoint", "deadline", "map", "speech", "transcription", "translation"]
