"""``.parsed`` has the type that ``parse=`` was given, in every method.  Checked by ``make types``, never run."""

from __future__ import annotations

import datetime
import enum
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Literal, Mapping, NamedTuple, Optional, TypedDict, Union

import pydantic
from typing_extensions import assert_type

import chatpool
from chatpool import ChatCompletion, ChatPool, Outcome, Results


@dataclass
class City:
    name: str
    inhabitants: int


class Fields(TypedDict):
    name: str


class Place(NamedTuple):
    name: str


class Mood(enum.Enum):
    GOOD = "good"


class Model(pydantic.BaseModel):
    name: str


class Adapter:
    """As much of pydantic's TypeAdapter as is looked at."""

    def validate_json(self, data: str, /) -> int:
        return len(data)


def words(text: str) -> List[str]:
    return text.split()


def kinds_of_parse(pool: ChatPool, schema: Dict[str, Any], frozen: Mapping[str, object]) -> None:
    assert_type(pool.chat("x", parse=City), ChatCompletion[City])
    assert_type(pool.chat("x", parse=City).parsed, City)
    assert_type(pool.chat("x", parse=City).parsed.name, str)
    assert_type(pool.chat("x", parse=Fields).parsed, Fields)
    assert_type(pool.chat("x", parse=Place).parsed.name, str)
    assert_type(pool.chat("x", parse=Mood).parsed, Mood)
    assert_type(pool.chat("x", parse=Model).parsed, Model)
    assert_type(pool.chat("x", parse=pydantic.TypeAdapter(List[Model])).parsed, List[Model])
    assert_type(pool.chat("x", parse=Adapter()).parsed, int)
    assert_type(pool.chat("x", parse=List[City]).parsed, List[City])
    assert_type(pool.chat("x", parse=Dict[str, int]).parsed, Dict[str, int])
    assert_type(pool.chat("x", parse=int).parsed, int)
    assert_type(pool.chat("x", parse=datetime.date).parsed, datetime.date)
    assert_type(pool.chat("x", parse=words).parsed, List[str])
    assert_type(pool.chat("x", parse=lambda text: text.count("a")).parsed, int)
    # Nothing is known of what a JSON schema describes, and type checkers tell nobody what is in a Union.
    assert_type(pool.chat("x", parse=schema).parsed, Any)
    assert_type(pool.chat("x", parse={"type": "object"}).parsed, Any)
    assert_type(pool.chat("x", parse=frozen).parsed, Any)
    assert_type(pool.chat("x", parse=Union[City, int]).parsed, Any)
    assert_type(pool.chat("x", parse=Optional[City]).parsed, Any)
    assert_type(pool.chat("x", parse=Literal["yes", "no"]).parsed, Any)
    answer: Optional[City] = pool.chat("x", parse=Optional[City]).parsed  # so one says it
    assert_type(pool.chat("x"), ChatCompletion)
    assert_type(pool.chat("x", parse=None), ChatCompletion)
    del answer


def methods(pool: ChatPool) -> None:
    assert_type(pool.responses("x", parse=City), ChatCompletion[City])
    assert_type(pool.submit("x", parse=City), Future[ChatCompletion[City]])
    assert_type(pool.submit("x", parse=words, accept="stop").result().parsed, List[str])
    assert_type(pool.imap(["x"], parse=City), Iterator[Outcome[ChatCompletion[City]]])
    assert_type(pool.as_completed(["x"], parse=Adapter()), Iterator[Outcome[ChatCompletion[int]]])
    for outcome in pool.imap(["x"], parse=List[City]):
        assert_type(outcome.result().parsed, List[City])
    assert_type(pool.map(["x"], parse=City), Results[ChatCompletion[City]])
    assert_type(pool.map(["x"], parse=City).parsed, List[Optional[City]])
    assert_type(pool.map(["x"], parse=City, on_error="raise")[0].parsed, City)
    assert_type(pool.retry(pool.map(["x"], parse=City)), Results[ChatCompletion[City]])
    assert_type(chatpool.map(["x"], parse=City, on_error="raise").outcomes, List[Outcome[ChatCompletion[City]]])
    assert_type(pool.with_options(model="m").chat("x", parse=City).parsed, City)
    assert_type(pool.with_options(model="m").map(["x"], parse=City, on_error="raise")[0].parsed.name, str)


def other_keywords(pool: ChatPool) -> None:
    pool.chat("x", parse=City, max_reasks=1, accept=("stop",), response_format=chatpool.json_schema(City))
    pool.map(["x"], parse={"type": "object"}, accept=["stop", None])


def mistakes(pool: ChatPool, completion: ChatCompletion[City]) -> None:
    pool.chat("x", parse=7)  # type: ignore[arg-type]
    pool.responses("x", parse=7)  # type: ignore[arg-type]
    pool.submit("x", parse=7)  # type: ignore[arg-type]
    pool.imap(["x"], parse=7)  # type: ignore[arg-type]
    pool.as_completed(["x"], parse=7)  # type: ignore[arg-type]
    pool.map(["x"], parse=7)  # type: ignore[call-overload]
    pool.map(["x"], parse=7, on_error="raise")  # type: ignore[call-overload]
    chatpool.map(["x"], parse=7)  # type: ignore[call-overload]
    pool.chat("x", accept=7)  # type: ignore[arg-type]
    pool.chat("x", max_reasks="2")  # type: ignore[arg-type]
    print(pool.chat("x", parse=City).parsed.nam)  # type: ignore[attr-defined]
    completion.parsed.name = 7  # type: ignore[assignment]
    other: ChatCompletion[int] = completion  # type: ignore[assignment]
    number: int = pool.submit("x", parse=words).result().parsed  # type: ignore[assignment]
    del other, number
