"""Documents a command out of its parser, so that the page cannot say anything else than ``--help``.

In a page: a fence of ``{cli}`` with the command's words, for instance ``{cli} ask`` or ``{cli} local serve``.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any, Dict, Iterator, List, Tuple

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def find_command(parser: argparse.ArgumentParser, words: List[str]) -> argparse.ArgumentParser:
    """The parser of a sub-command; ``parser`` itself for no words.

    Raises:
        ValueError: there is no such command.
    """
    for word in words:
        choices: Any = next((action.choices for action in parser._actions if _has_commands(action)), {})
        if word not in choices:
            raise ValueError(f"no command {' '.join(words)!r}; there are {', '.join(choices)}")
        parser = choices[word]
    return parser


def _has_commands(action: argparse.Action) -> bool:
    return isinstance(action, argparse._SubParsersAction)


def _groups(parser: argparse.ArgumentParser) -> Iterator[Tuple[str, List[argparse.Action]]]:
    """The arguments in the groups of ``--help``, with the title of each; none without arguments."""
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if each.help != argparse.SUPPRESS and not _has_commands(each)]
        if actions:
            yield str(group.title), actions


def _term(action: argparse.Action) -> str:
    value = action.metavar or (action.dest if not action.option_strings else action.dest.upper())
    shown = value if isinstance(value, str) else " ".join(value)
    if not action.option_strings:
        return shown
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {shown}"


def _definition(parser: argparse.ArgumentParser, action: argparse.Action) -> nodes.definition_list_item:
    formatter = parser._get_formatter()
    text = formatter._expand_help(action) if action.help else ""
    term = nodes.term("", "", nodes.literal(text=_term(action)))
    return nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph(text=text)))


class Cli(SphinxDirective):
    """Usage, description and arguments of one command."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> List[nodes.Node]:
        """The command as nodes."""
        parser = find_command(load_parser(), (self.arguments[0] if self.arguments else "").split())
        found: List[nodes.Node] = [nodes.literal_block(text=parser.format_usage().strip(), language="text")]
        found += [nodes.paragraph(text=text) for text in (parser.description, parser.epilog) if text]
        groups = list(_groups(parser))
        for title, actions in groups:
            if len(groups) > 1:
                found.append(nodes.rubric(text=title))
            found.append(nodes.definition_list("", *(_definition(parser, action) for action in actions)))
        return found


def load_parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    parser: Any = importlib.import_module("chatpool.cli.parser").build_parser()
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def setup(app: Sphinx) -> Dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("cli", Cli)
    return {"parallel_read_safe": True}
