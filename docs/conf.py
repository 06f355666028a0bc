"""Sphinx configuration.  Build with ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, List, Tuple

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
# The sources beside this folder are documented, installed or not.
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import chatpool  # noqa: E402 - found by the path set above

project = "chatpool"
author = "the chatpool authors"
project_copyright = author
version = release = chatpool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "cli_reference", "public_members"]
exclude_patterns = ["_build"]
root_doc = "index"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# ``output`` is Pygments' own name for what a program printed.
highlight_language = "python"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
# What chatpool.contrib is for; not installed where the pages are made.
autodoc_mock_imports = ["celery", "cloudpickle", "distributed", "opentelemetry", "prometheus_client"]
# Named in signatures and described in reference/settings.md, where most would be unions of many lines.
autodoc_type_aliases = {
    "Files": "chatpool.types.Files",
    "Item": "chatpool.types.Item",
    "ResponseForm": "chatpool.types.ResponseForm",
    "Listener": "chatpool.events.Listener",
    "PricesLike": "chatpool.prices.PricesLike",
    "RetryPolicyLike": "chatpool.config.RetryPolicyLike",
    "TimeoutLike": "chatpool.config.TimeoutLike",
    **{name: name for name in ("Action", "ScriptLike")},
    **{
        name: name
        for name in (
            "Accept",
            "Cert",
            "ItemKey",
            "JournalPath",
            "Key",
            "MaxFailures",
            "Parse",
            "Progress",
            "Verify",
            "WhenDown",
        )
    },
}
nitpicky = True
nitpick_ignore_regex = [
    # Other projects' names; their inventories would need a network.
    (
        "py:.*",
        r"(array|asyncio|celery|collections|concurrent|os|pathlib|requests|ssl|tenacity|threading)(\.\S+)?",
    ),
    ("py:.*", r"(distributed|django)\.\S+|ImproperlyConfigured|StreamingHttpResponse|InvalidPoolError"),
    ("py:class", r"(opentelemetry|prometheus_client)\.\S+"),
    ("py:class", "Future"),  # of concurrent.futures, in overloads, which are shown as they are written
    ("py:.*", r"(chatpool\.\S+\.)?[A-Z](\w*T)?"),  # type variables and tenacity's types
    # What steps are made of, and what a report counts with: values of public attributes, but of no use alone.
    ("py:class", r"Action|(chatpool\.testing\.steps\.)?Answerer|Timeline|chatpool\.batch\.(report|timeline)\.\w+"),
    ("py:class", r"chatpool\._journal\.record\.Record|chatpool\.testing\.memory\.Replies"),
    ("py:class", r"chatpool\._client\.api_methods\.ApiMethods"),  # a part of ChatPool
]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_param = False  # "timeout, retry: as in chat" is one line, not two
# Sentences with a colon in them are not "type: description".
napoleon_custom_sections = ["Returns"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["chatpool.css"]
html_title = f"chatpool {version}"
html_copy_source = False
html_show_sphinx = False


# Results of calls: nobody makes one.
_RETURNED = frozenset(
    {"Attempt", "BatchResult", "Bill", "ChatChunk", "ChatCompletion", "ChatStream", "Choice", "Event", "LineStats"}
    | {"Outcome", "PoolStats", "Prices", "ReceivedRequest", "Report", "Results", "ToolCall", "ToolCallDelta", "Usage"}
)


def _short_signatures(app: Sphinx, what: str, name: str, obj: Any, *rest: Any) -> Tuple[str, None] | None:
    """Errors are caught, and results returned: the arguments that make them would hide what they mean."""
    is_returned = what == "class" and name.rpartition(".")[2] in _RETURNED
    return ("", None) if what == "exception" or is_returned else None


def _public_bases(app: Sphinx, name: str, obj: Any, options: Any, bases: List[type]) -> None:
    """A private class between two public ones is of no use to a reader."""
    for place, base in enumerate(bases):
        line = getattr(base, "__mro__", (base,))  # NamedTuple, as a base, is a function
        bases[place] = next((cls for cls in line if not cls.__name__.startswith("_")), base)  # one of Celery has none


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", _short_signatures)
    app.connect("autodoc-process-bases", _public_bases)
