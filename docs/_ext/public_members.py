"""Gives every public attribute of a documented class an anchor, and keeps the signatures of overloads short.

- Fields of a dataclass or a NamedTuple that its docstring has under ``Args:`` are documented as attributes.
- What a class has from a documented base stands in one line, with an anchor of the class's own for each name.
- Errors are known by the name ``chatpool.X``, too, under which programs import them.
- A public name without an anchor is a warning, and so an error of ``make docs``.
- Overloads after the first show what they differ in.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import Any, Dict, Iterator, List, Set, get_type_hints

from docutils import nodes
from public_names import inherited, public_names
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import inspect as sphinx_inspect
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import stringify_annotation

_log = logging.getLogger(__name__)

_COLON = "\0"
_ENTRY = re.compile(r"    (\w+(?:, \w+)*): (.*)")


def _is_record(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def _show_fields(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: List[str]) -> None:
    """Make attributes of a record's arguments, and give attributes the types of ``__init__``'s arguments."""
    if what in ("attribute", "data", "property"):
        lines[:1] = [line.replace(":", _COLON) for line in lines[:1]]  # or napoleon takes what is before it for a type
    if not inspect.isclass(obj):
        return
    if _is_record(obj) and "Args:" in lines:
        lines[lines.index("Args:")] = "Attributes:"
    if "Attributes:" in lines:
        start = lines.index("Attributes:") + 1
        end = next((at for at in range(start, len(lines)) if lines[at] and lines[at][0] != " "), len(lines))
        lines[start:end] = _typed_entries(lines[start:end], obj)


def _typed_entries(lines: List[str], cls: type) -> Iterator[str]:
    """Yield the lines of a list of attributes: each by itself, with its type where only ``__init__`` has that."""
    types = {name: hint for name, hint in _hints(cls.__init__).items() if name not in _hints(cls)}
    for line in lines:
        entry = _ENTRY.match(line)
        for name in entry[1].split(", ") if entry else ():
            shown = stringify_annotation(types[name], "smart").replace("~", "") if name in types else ""
            yield f"    {name} ({shown}): {entry[2]}" if shown else f"    {name}: {entry[2]}"
        if not entry:
            yield line


def _hints(obj: Any) -> Dict[str, Any]:
    try:
        return get_type_hints(obj)
    except (NameError, TypeError):  # what only type checkers import
        return {}


def _append_inherited(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: List[str]) -> None:
    """Say what the class inherits, and put the types of attributes beside their names."""
    lines[:1] = [line.replace(_COLON, ":") for line in lines[:1]]
    if inspect.isclass(obj):
        for number in range(len(lines)):
            if lines[number].startswith(".. attribute:: "):
                _move_type(lines, number)
        hidden = getattr(options, "exclude_members", None) or ()
        lines += ["", f".. inherited:: {name} {' '.join(sorted(hidden))}".rstrip(), ""]


def _move_type(lines: List[str], number: int) -> None:
    """Turn the field ``type`` of an attribute into the directive's option."""
    for place in range(number + 1, len(lines)):
        if lines[place] and not lines[place].startswith(" "):
            return
        if lines[place].startswith("   :type: "):
            lines.insert(number + 1, lines.pop(place).replace("~", ""))
            return


class Inherited(SphinxDirective):
    """One line: the names that a class has from its bases.  Arguments: its full name, and names its page leaves out."""

    required_arguments = 1
    optional_arguments = 100

    def run(self) -> List[nodes.Node]:
        """The line, none where there is nothing to say."""
        name, *hidden = self.arguments
        module, _, short = name.rpartition(".")
        cls = getattr(importlib.import_module(module), short)
        domain = self.env.get_domain("py")
        if module == "chatpool.errors":
            domain.note_object(f"chatpool.{short}", "exception", name, aliased=True, location=self.get_location())
        found: List[nodes.Node] = [self._line(name, *pair) for pair in inherited(cls, hidden).items()]
        advice = vars(cls).get("advice")
        return [*found, nodes.paragraph("", f"Advice: {advice}.")] if advice else found

    def _line(self, name: str, base: type, members: List[str]) -> nodes.Node:
        domain, where = self.env.get_domain("py"), _documented(base, name.rpartition(".")[0])
        line = nodes.paragraph("", "Inherited from ", classes=["inherited"])
        line += [_reference(where, base.__name__, self.env.docname), nodes.Text(": ")]
        for number, member in enumerate(members):
            target = f"{name}.{member}"
            domain.note_object(target, "attribute", target, aliased=True, location=self.get_location())
            line += [nodes.Text(", ")] if number else []
            line += [nodes.inline("", "", ids=[target]), _reference(f"{where}.{member}", member, self.env.docname)]
        return line


def _documented(base: type, module: str) -> str:
    """The full name under which a base is documented: that of the first module of these that exports it."""
    homes = (module, "chatpool.errors", "chatpool.testing", "chatpool")
    exporting = [home for home in homes if base.__name__ in importlib.import_module(home).__all__]
    return f"{[*exporting, base.__module__][0]}.{base.__name__}"


def _reference(target: str, text: str, page: str) -> nodes.Node:
    options = {"refdomain": "py", "reftype": "obj", "reftarget": target, "refdoc": page, "refwarn": True}
    return addnodes.pending_xref("", nodes.literal(text=text), **options)


def _shorten_overloads(app: Sphinx, domain: str, objtype: str, content: addnodes.desc_content) -> None:
    """Leave out of each overload but the first the keywords that an earlier one has, too."""
    seen: Set[str] = set()
    for found in content.parent.findall(addnodes.desc_parameterlist):
        if found.parent.parent is content.parent:
            alike = [node for node in found if node.astext() in seen and "=" in node.astext()]
            seen.update(node.astext() for node in found)
            if alike:
                found.insert(found.index(alike[0]), addnodes.desc_parameter("", "", nodes.Text("...")))
                found.children[:] = [node for node in found if node not in alike]


def _check_anchors(app: Sphinx, env: BuildEnvironment) -> None:
    anchors = env.get_domain("py").objects
    for name in public_names():
        if name not in anchors:
            _log.warning("%s has no anchor in the reference: document it there, or in its docstring", name)


def setup(app: Sphinx) -> Dict[str, Any]:
    """Called by Sphinx."""
    # Otherwise Optional[Alias] is shown as TypeAliasForwardRef('Alias') | None.
    sphinx_inspect.TypeAliasForwardRef.__repr__ = lambda self: self.name
    app.connect("autodoc-process-docstring", _show_fields, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", _append_inherited, priority=600)
    app.connect("object-description-transform", _shorten_overloads)
    app.connect("env-check-consistency", _check_anchors)
    app.add_directive("inherited", Inherited)
    return {"parallel_read_safe": True}
