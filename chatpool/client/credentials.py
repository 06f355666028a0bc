"""Keys that are in other places than ``api_key=``."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from ..errors import ConfigurationError

__all__ = ["is_credential", "refuse_credentials"]

_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


def is_credential(name: Any) -> bool:
    """Recognise a header or URL parameter that carries a key."""
    return str(name).lower() in _CREDENTIALS


def refuse_credentials(what: str, given: Optional[Mapping[str, Any]]) -> None:
    """Refuse to pickle headers or parameters that carry a key.

    Raises:
        ConfigurationError: one does.
    """
    found = next((name for name in given or () if is_credential(name)), None)
    if found is not None:
        raise ConfigurationError(
            f"{what} has a key in it ({str(found).lower()}), and keys are not pickled: pass api_key as a function that "
            "fetches it, or make the pool where it is used"
        )
