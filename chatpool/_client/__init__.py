"""The public pool."""

from .._wire.media import speech, transcription, translation
from .api_methods import StoredFiles
from .cache_settings import Cache
from .endpoint import Endpoint
from .pool import (
    ChatPool,
    map,  # noqa: A004 - exported as chatpool.map
)
from .streams import ChatStream
from .time_budget import deadline

__all__ = [
    "Cache",
    "ChatPool",
    "ChatStream",
    "Endpoint",
    "StoredFiles",
    "deadline",
    "map",
    "speech",
    "transcription",
    "translation",
]
