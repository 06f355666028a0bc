"""Prices of tokens, in the forms in which users have them, and the bill: the one count of tokens and money."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from numbers import Number  # decimals are
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from .answers import Usage
from .errors import ConfigurationError

__all__ = ["Bill", "Charge", "Price", "Prices", "PricesLike", "dollars", "prices_of"]

PricesLike = Union[float, Sequence[float], Mapping[str, Any], str, os.PathLike[str]]
"""Prices of a million tokens.

One number (embeddings: only reading costs), two (read, written) or three (read, written, read from the server's
prompt cache), for all models or by model; by model also in LiteLLM's form, and a JSON file of either.
"""

_MILLION = 1e6

# LiteLLM's names, of dollars per token, in the order of Price.
_PER_TOKEN = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")
_TIERS = ("flex", "priority")  # the names of the same prices in these tiers end in "_flex" and "_priority"
_MOST_FIGURES = 3

_DATE = re.compile(r"[-@](?:\d{4}-\d\d-\d\d|\d{8})$")


class Price(NamedTuple):
    """The prices of a million tokens of one model.

    Attributes:
        read: of the prompt.
        written: of the answer.
        cached: of those of the prompt that came from the server's cache; None: as the others.
        tiers: prices of the service tiers that have prices of their own, with the names of these.
    """

    read: float
    written: float = 0.0
    cached: Optional[float] = None
    tiers: Tuple[Tuple[str, Price], ...] = ()

    def of_tier(self, tier: Optional[str]) -> Price:
        """Return the prices in a service tier: these, where it has none of its own."""
        return next((price for name, price in self.tiers if name == tier), self)

    def cost(self, read: float, written: float, cached: float = 0.0) -> float:
        """Return the cost of a number of tokens; ``cached`` is the part of ``read`` that came from the cache."""
        cached = min(cached, read) if self.cached is not None else 0.0
        return ((read - cached) * self.read + cached * (self.cached or 0.0) + written * self.written) / _MILLION

    def of(self, usage: Usage) -> float:
        """Return the cost of ``usage``; a cost that the server states goes before."""
        if usage.cost is not None:
            return usage.cost
        return self.cost(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)


class Prices(Mapping[str, Price]):
    """Prices by model, and a default for all other models.

    Args:
        models: prices by the name of the model.
        default: the price of all others, None without one.
    """

    __slots__ = ("_default", "_models")

    def __init__(self, models: Mapping[str, Price], default: Optional[Price] = None) -> None:
        self._models = dict(models)
        self._default = default

    def __getitem__(self, model: str) -> Price:
        return self._models[model]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __bool__(self) -> bool:
        return bool(self._models) or self._default is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prices):
            return NotImplemented
        return self._models == other._models and self._default == other._default

    def __hash__(self) -> int:
        return hash((frozenset(self._models.items()), self._default))

    def __repr__(self) -> str:
        return f"Prices({len(self)} models)" if self._default is None else f"Prices({tuple(self._default)})"

    def of_model(self, model: Optional[str]) -> Optional[Price]:
        """Return the price of a model under exactly this name, None without one."""
        return self._models.get(model or "", self._default)

    def of_answer(self, asked: Optional[str], answered: Optional[str] = None) -> Optional[Price]:
        """Return the price of an answer, None without one.

        A name without a price is looked up without the provider before it, without the date behind it, or without both.

        Args:
            asked: the model that was asked for, None where that is not known.
            answered: the model that answered by its own account.
        """
        models = self._models
        if asked in models:
            return models[asked]
        for model in filter(None, (answered, asked)):
            undated = _DATE.sub("", model)
            for name in (model, model.rpartition("/")[2], undated, undated.rpartition("/")[2]):
                if name in models:
                    return models[name]
        return self._default


def prices_of(value: PricesLike, name: str = "prices") -> Prices:
    """Return ``value`` as :class:`Prices`, checked.

    Args:
        value: see :data:`PricesLike`.
        name: the parameter, for messages.

    Raises:
        TypeError: it has another type.
        ConfigurationError: a price is negative or not finite, or the file cannot be read.
    """
    if isinstance(value, Prices):
        return value
    if isinstance(value, (str, os.PathLike)):
        return prices_of(_read_file(os.fspath(value), name), f"{name} of {os.fspath(value)}")
    if isinstance(value, Mapping):
        return Prices(_by_model(value, name))
    return Prices({}, _price(value, name, f"{name} must be"))


def _read_file(path: str, name: str) -> Mapping[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{name} cannot be read from {path!r}: {reason}; it must be a JSON file") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{name} in {path!r} must be an object of models and their prices, got {type(content).__name__}"
        )
    return content


def _by_model(value: Mapping[Any, Any], name: str) -> Dict[str, Price]:
    prices: Dict[str, Price] = {}
    for model, figures in value.items():
        if not isinstance(model, str):
            raise TypeError(f"{name} must map the names of models to prices, got the key {model!r}")
        where = f"{name}[{model!r}]"
        if isinstance(figures, Mapping):
            # An entry without prices per token, for images say, leaves its model without one.
            if figures.get(_PER_TOKEN[0]) is not None or figures.get(_PER_TOKEN[1]) is not None:
                prices[model] = _per_token(figures, where)
        else:
            prices[model] = _price(figures, where, f"{name} must map a model's name to", in_mapping=True)
    if value and not prices:
        raise ConfigurationError(f"{name} has no price per token: {_PER_TOKEN[0]} and {_PER_TOKEN[1]} are read")
    return prices


def _per_token(figures: Mapping[Any, Any], where: str) -> Price:
    usual = _tier_price(figures, where, "", Price(0.0))
    tiers = [(tier, f"_{tier}") for tier in _TIERS if figures.get(f"{_PER_TOKEN[0]}_{tier}") is not None]
    return usual._replace(tiers=tuple((tier, _tier_price(figures, where, end, usual)) for tier, end in tiers))


def _tier_price(figures: Mapping[Any, Any], where: str, end: str, usual: Price) -> Price:
    """Return the price in the fields whose names have this end; ``usual`` where one is missing."""
    read, written, cached = (
        # Digits that the multiplication invents are no part of a price.
        None if figures.get(field) is None else round(_figure(f"{where}.{field}", figures[field]) * _MILLION, 9)
        for field in (f"{name}{end}" for name in _PER_TOKEN)
    )
    return Price(usual.read if read is None else read, usual.written if written is None else written, cached)


def _price(value: Any, name: str, must: str, *, in_mapping: bool = False) -> Price:
    figures = [value] if isinstance(value, Number) else value
    of_numbers = isinstance(figures, (list, tuple)) and all(
        isinstance(figure, Number) and not isinstance(figure, bool) for figure in figures
    )
    if not (of_numbers and 1 <= len(figures) <= _MOST_FIGURES):
        raise TypeError(
            f"{must} the price of a million tokens read (embeddings), to two numbers (read, written), or to three "
            f"(read, written, read from the cache), got {name}={value!r}"
            if in_mapping
            else f"{must} the price of a million tokens read (embeddings), two numbers (read, written), three "
            f"(read, written, read from the cache), a dict of model to these, or a file of prices, got {value!r}"
        )
    checked: List[Any] = [_figure(name, figure) for figure in figures]
    return Price(*checked)


def _figure(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        figure = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not 0 <= figure < math.inf:
        raise ConfigurationError(f"{name} must not be negative, NaN or infinite, got {value!r}")
    return figure


class Charge(NamedTuple):
    """The tokens of the answers to one request.

    Attributes:
        usage: the tokens; None where nothing is known.
        model: the model that was asked for.
        answered: the model that answered, by its own account.
        tier: the ``service_tier`` that was asked for.
    """

    usage: Optional[Usage]
    model: Optional[str] = None
    answered: Optional[str] = None
    tier: Optional[str] = None


class Bill:
    """Adds up answers: their tokens, and their money where it is known.

    Results, summaries, reports and statistics all count with this.  Not thread-safe.

    Args:
        prices: for answers whose server does not state their cost; None without any.

    Attributes:
        unpriced: by model, the answers whose cost is not known.
    """

    __slots__ = ("_cost", "_prices", "_stated", "_tokens", "_unstated", "unpriced")

    def __init__(self, prices: Optional[Prices] = None) -> None:
        self._prices = prices
        self._tokens: List[int] = [0] * 5
        self._cost = 0.0
        self._stated = self._unstated = False  # by a server, at least once
        self.unpriced: Counter[str] = Counter()

    def add_all(self, charges: Iterable[Charge], *, share: float = 1.0) -> None:
        """Count the answers to several requests; ``share`` as for :meth:`add`."""
        for charge in charges:
            self.add(charge.usage, charge.model, charge.answered, share=share, tier=charge.tier)

    def add(
        self,
        usage: Optional[Usage],
        asked: Optional[str] = None,
        answered: Any = None,
        *,
        share: float = 1.0,
        tier: Optional[str] = None,
    ) -> None:
        """Count one answer.

        Args:
            usage: its tokens; None where nothing is known, which counts as nothing.
            asked, answered: as for :meth:`Prices.of_answer`; ``answered`` as it stands in the answer, whatever it is.
            share: the share of the price that it costs; a cost that the server states is whole.
            tier: the service tier that was asked for.
        """
        if usage is None:
            return
        tokens = self._tokens
        tokens[0] += usage.prompt_tokens
        tokens[1] += usage.completion_tokens
        tokens[2] += usage.total_tokens
        tokens[3] += usage.cached_tokens
        tokens[4] += usage.reasoning_tokens
        if usage.cost is not None:
            self._cost += usage.cost
            self._stated = True
        elif usage._has_tokens:
            self._unstated = True
            answered = answered if isinstance(answered, str) else None
            price = None if self._prices is None else self._prices.of_answer(asked, answered)
            if price is None:
                self.unpriced[answered or asked or ""] += 1
            else:
                self._cost += share * price.of_tier(tier).of(usage)

    def wants_answered(self, asked: Optional[str]) -> bool:
        """Return whether the price depends on the model that answered."""
        return self._prices is not None and len(self._prices) > 0 and asked not in self._prices

    @property
    def usage(self) -> Usage:
        """The tokens of all answers."""
        read, written, total, cached, reasoning = self._tokens
        stated = self._cost if self._stated and not self._unstated else None
        return Usage(read, written, total, cached, reasoning, stated)

    @property
    def cost(self) -> Optional[float]:
        """The money of the answers whose cost is known; None where there are neither prices nor stated costs."""
        return self._cost if self._stated or self._prices is not None else None

    def note(self) -> str:
        """Return a note for a person on the models whose answers are not in :attr:`cost`; "" without any."""
        if not self.unpriced or self.cost is None:
            return ""
        return "no price for " + ", ".join(name or "a model without a name" for name, _ in self.unpriced.most_common(3))


def dollars(amount: float) -> str:
    """Return a sum for a person: with cents, and with four digits below one cent."""
    if 0 < amount < 0.00005:
        return "less than $0.0001"
    return f"${amount:.4f}" if 0 < amount < 0.01 else f"${amount:,.2f}"
