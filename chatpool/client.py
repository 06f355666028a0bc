"""Modules in which version 0.1.0 pickled its pools and endpoints, so that they load.  Nothing else imports this."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from ._client.endpoint import Endpoint, _restored
from ._client.options import CallDefaults
from ._client.pickling import PoolRecipe, restore
from ._client.pool import ChatPool
from ._client.pool import map as map_
from ._client.streams import ChatStream
from ._structured.json_schema import json_schema as json_schema_
from ._structured.validation import AnswerRules

__all__ = ["endpoint", "json_schema", "one_shot", "options", "pickling", "pool", "review", "stream"]


def _module(name: str, **names: Any) -> ModuleType:
    """Make a module of this one that has ``names``, under which 0.1.0 knew them."""
    module = sys.modules[f"{__name__}.{name}"] = ModuleType(f"{__name__}.{name}")
    vars(module).update(names)
    return module


endpoint = _module("endpoint", Endpoint=Endpoint, _restored=_restored)
json_schema = _module("json_schema", json_schema=json_schema_)
one_shot = _module("one_shot", map=map_)
options = _module("options", Defaults=CallDefaults)
pickling = _module("pickling", Origin=PoolRecipe, restore=restore)
pool = _module("pool", ChatPool=ChatPool)
review = _module("review", AnswerRules=AnswerRules)
stream = _module("stream", ChatStream=ChatStream)
