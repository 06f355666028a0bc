"""Show overloads of a function by what sets each apart: keywords that are those of an earlier one are ``...`` there."""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import Any, Dict, List

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

MODULES = ["chatpool._client.pool"]


def shortened(overload: Signature, earlier: List[Signature]) -> Signature:
    """Return the overload without keywords that are the same in an earlier one of as many."""
    for other in earlier:
        if other.parameters.keys() == overload.parameters.keys():
            kept = [
                parameter
                for name, parameter in overload.parameters.items()
                if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD or parameter != other.parameters[name]
            ]
            rest = Parameter("as_above", Parameter.VAR_KEYWORD)
            return overload.replace(parameters=[*kept, rest])
    return overload


def shorten_overloads(app: Sphinx) -> None:
    """Change what autodoc will read: the analysis of each module is made once and kept."""
    for name in MODULES:
        analyzer = ModuleAnalyzer.for_module(name)
        analyzer.analyze()
        for function, overloads in analyzer.overloads.items():
            analyzer.overloads[function] = [
                shortened(overload, overloads[:place]) for place, overload in enumerate(overloads)
            ]


def setup(app: Sphinx) -> Dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", shorten_overloads)
    return {"parallel_read_safe": True}
