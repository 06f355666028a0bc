"""Short texts, figures and tables as reprs, notebooks and report pages show them; HTML is escaped here."""

from __future__ import annotations

import html
import itertools
import math
import reprlib
from typing import Any, Dict, Iterable, List, Sequence, Tuple, Union

from ._redaction import printable
from .answers import Usage

__all__ = [
    "SHARES",
    "Cell",
    "Fact",
    "block",
    "escaped",
    "latency_text",
    "percentiles",
    "share_name",
    "short",
    "table",
    "token_facts",
]

Fact = Tuple[str, str]
"""A name and a text for a person; "" as the name goes on with the fact before."""

Cell = Union[str, int, float]
"""A cell of a table; numbers stand at the right."""

SHARES = (0.5, 0.9, 0.95, 0.99, 1.0)

_SHORT_CHARACTERS = 120

# No colour of the theme's is replaced, so that it is readable in light and dark ones.  Jupyter has all cells of tables
# at the right, by rules that go before those of an output.
_STYLE = """<style>
div.chatpool-repr { max-width: 100%; overflow-x: auto; }
div.chatpool-repr table { border-collapse: collapse; margin: 6px 0 0; font-size: 13px; }
div.chatpool-repr td, div.chatpool-repr th { text-align: left !important; vertical-align: top;
  padding: 3px 14px 3px 0; border: 0; border-top: 1px solid rgba(128, 128, 128, 0.35); background: none;
  white-space: pre-wrap; max-width: 34em; overflow-wrap: anywhere; }
div.chatpool-repr tr { background: none; }
div.chatpool-repr th, div.chatpool-repr td:first-child, div.chatpool-repr .right { white-space: nowrap; }
div.chatpool-repr .right { text-align: right !important; }
</style>"""


def percentiles(values: Sequence[float], shares: Sequence[float] = SHARES) -> Dict[float, float]:
    """Return the smallest value that each share of the values does not exceed; nothing for no values."""
    ordered = sorted(values)
    return {share: ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in shares if ordered}


def share_name(share: float) -> str:
    """Return the name of a percentile."""
    return "longest" if share == 1.0 else f"p{100 * share:g}"


def latency_text(latencies: Sequence[float]) -> str:
    """Return percentiles of seconds, on one line."""
    return "  ".join(f"{share_name(share)} {value:.2f} s" for share, value in percentiles(latencies).items())


def token_facts(usage: Usage) -> List[Fact]:
    """Return what a person wants to know of tokens."""
    facts = [("tokens", f"{usage.prompt_tokens:,} read, {usage.completion_tokens:,} written")]
    if usage.cached_tokens:
        facts.append(("", f"{usage.cached_tokens:,} of those read came from the prompt cache"))
    if usage.reasoning_tokens:
        facts.append(("", f"{usage.reasoning_tokens:,} of those written were reasoning"))
    return facts


class _Repr(reprlib.Repr):
    """Short reprs of any value, with the fields of a dict in their order; a repr that raises does no harm."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _SHORT_CHARACTERS

    def repr_dict(self, x: Dict[Any, Any], level: int) -> str:
        if level <= 0 and x:
            return "{...}"
        shown = [f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}" for key in itertools.islice(x, 6)]
        return "{" + ", ".join(shown + ["..."] * (len(x) > len(shown))) + "}"


_repr = _Repr()


def short(value: Any, characters: int = _SHORT_CHARACTERS) -> str:
    """Return a text, or the repr of another value, on one line, cut, without characters that a terminal obeys."""
    text = value if isinstance(value, str) else _repr.repr(value)
    head = text[: 2 * characters]
    line = " ".join(printable(head).split())
    return line if len(head) == len(text) and len(line) <= characters else line[: characters - 1] + "…"


def escaped(text: str) -> str:
    """Return any text as HTML."""
    return html.escape(printable(text))


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a ``<table>`` without columns that are empty; "" for no rows.  An empty ``head`` is none."""
    lines = list(rows)
    filled = [place for place in range(len(lines[0]) if lines else 0) if any(line[place] != "" for line in lines)]
    names = "".join(f"<th{_right(lines[0][place])}>{escaped(head[place])}</th>" for place in filled if head)
    body = "".join(f"<tr>{''.join(_cell(line[place]) for place in filled)}</tr>" for line in lines)
    return f"<table>{f'<tr>{names}</tr>' if names else ''}{body}</table>" if lines else ""


def _right(cell: Cell) -> str:
    return "" if isinstance(cell, str) else ' class="right"'


def _cell(cell: Cell) -> str:
    text = cell if isinstance(cell, str) else _number(cell)
    return f"<td{_right(cell)}>{escaped(text)}</td>"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}" if value >= 0.1 or not value else f"{value:.3f}"


def block(title: str, facts: Iterable[Fact], *tables: str) -> str:
    """Return what a notebook shows of a value: its title, facts, and tables of HTML."""
    parts = [f"<strong>{escaped(title)}</strong>", table((), facts), *tables]
    # Between two dollar signs Jupyter would set mathematics, with what stands there as commands.
    return f'{_STYLE}<div class="chatpool-repr tex2jax_ignore mathjax_ignore">{"".join(parts)}</div>'
