"""Where version 0.1.0 had what it pickled: pools and endpoints of that version load.  Nothing else imports this."""

from __future__ import annotations

import sys

from ._client import endpoint, options, pickling, pool
from ._structured import validation

__all__ = ["endpoint", "options", "pickling", "pool", "validation"]

_MODULES = {
    "endpoint": endpoint,
    "options": options,
    "pickling": pickling,
    "pool": pool,
    "review": validation,
}
sys.modules.update({f"{__name__}.{name}": module for name, module in _MODULES.items()})
