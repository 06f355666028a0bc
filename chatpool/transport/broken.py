"""What stands in for a transport that could not be made again after a fork."""

from __future__ import annotations

from typing import Any, Mapping, NoReturn, Optional

from ..config import Timeout
from ..errors import ConfigurationError
from ..types import ChatRequest, Reply
from .cancel import CancelToken
from .transport import Transport

__all__ = ["BrokenTransport"]


class BrokenTransport(Transport):
    """Answers every exchange with the reason; a pool without any transport would hang.

    Args:
        inherited: the parent process's transport, whose connections are not touched.
        reason: why it could not be made again.
    """

    def __init__(self, inherited: Transport, reason: Exception) -> None:
        self._base_url = inherited.base_url
        self._settings = inherited.settings
        self._proxy = inherited.proxy
        self._reason = reason

    def exchange(
        self,
        request: ChatRequest,
        body: bytes,
        *,
        timeout: Timeout,
        cancel: CancelToken,
        headers: Optional[Mapping[str, Optional[str]]] = None,
        query: Optional[Mapping[str, str]] = None,
    ) -> Reply:
        """Never one.

        Raises:
            ConfigurationError: always, from the reason.
        """
        self._refuse()

    def open(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Never one either."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigurationError(
            f"the pool cannot be used in this forked process: {self._reason}; make a new ChatPool in it"
        ) from self._reason

    def close(self) -> None:
        """There is nothing to close."""

    def abort(self) -> None:
        """There is nothing to end."""
