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
version = release = chatpool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "cli_reference", "short_overloads"]
exclude_patterns = ["_build"]
root_doc = "index"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# ``output`` is Pygments' own name for what a program printed.
highlight_language = "python"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Sentences with a colon in them are not "type: description".
napoleon_custom_sections = ["Returns"]

html_theme = "furo"
html_title = f"chatpool {version}"
html_copy_source = False
html_show_sphinx = False


def _short_exceptions(app: Sphinx, what: str, name: str, obj: Any, *rest: Any) -> Tuple[str, None] | None:
    """Errors are caught, not made: their arguments would hide what they mean."""
    return ("", None) if what == "exception" else None


def _public_bases(app: Sphinx, name: str, obj: Any, options: Any, bases: List[type]) -> None:
    """A private class between two public ones is of no use to a reader."""
    for place, base in enumerate(bases):
        line = getattr(base, "__mro__", (base,))  # NamedTuple, as a base, is a function
        bases[place] = next(cls for cls in line if not cls.__name__.startswith("_"))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", _short_exceptions)
    app.connect("autodoc-process-bases", _public_bases)
