"""Tables and their cells as the input of runs: columns, empty cells, numbers that are not Python's own."""

from __future__ import annotations

import decimal
import enum
import pathlib
import uuid

import pytest

from chatpool import ChatPool


class Libraries:
    """Those that make tables, imported when a test uses them: each process of the suite collects this file."""

    def __getattr__(self, name):
        if name.startswith("_"):  # which pytest looks for in whatever it finds in a file
            raise AttributeError(name)
        return pytest.importorskip(name)


the = Libraries()

TABLES = {
    "pandas": lambda: the.pandas.DataFrame({"id": [1], "text": ["one"]}),
    "polars": lambda: the.polars.DataFrame({"id": [1], "text": ["one"]}),
    "lazy": lambda: the.polars.LazyFrame({"id": [1], "text": ["one"]}),
    "pyarrow": lambda: the.pyarrow.table({"id": [1], "text": ["one"]}),
    "batch": lambda: the.pyarrow.RecordBatch.from_pylist([{"id": 1, "text": "one"}]),
}
MISSING = {
    "float": lambda: float("nan"),
    "NA": lambda: the.pandas.NA,
    "NaT": lambda: the.pandas.NaT,
    "str": lambda: "",
    "float32": lambda: the.numpy.float32("nan"),
    "Decimal": lambda: decimal.Decimal("NaN"),
    "scalar": lambda: the.pyarrow.scalar(None, the.pyarrow.string()),
    "masked": lambda: the.numpy.ma.masked,
    "None": lambda: None,
}


class Color(enum.Enum):
    RED = "red"


@pytest.fixture
def pool(chatpool_server):
    with ChatPool("m", base_url=chatpool_server.base_url) as pool:
        yield pool


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("method", ["map", "imap", "as_completed", "stream_many", "embed", "chat", "submit"])
def test_a_table_is_refused_and_the_error_says_what_to_pass(pool, chatpool_server, method, kind):
    with pytest.raises(TypeError) as caught:
        getattr(pool, method)(TABLES[kind]())
    assert '["column"]' in str(caught.value)
    assert chatpool_server.requests == []


def test_the_cures_work(pool, chatpool_server):
    table = TABLES["pandas"]()
    with pytest.raises(TypeError, match=r'pass df\["column"\], for whole rows df.to_dict\("records"\) with prompt='):
        pool.map(table, prompt=lambda row: row["text"])
    with pytest.raises(TypeError, match=r'collect.*pass df\["column"\], for whole rows df.to_dicts\(\)'):
        pool.map(TABLES["lazy"]())
    replies = pool.map(table["text"]) + pool.map(table.to_dict("records"), prompt=lambda row: row["text"])
    replies += pool.map(TABLES["polars"]().to_dicts(), prompt=lambda row: row["text"])
    replies += pool.map(TABLES["pyarrow"]()["text"])
    assert [str(reply) for reply in replies] == ["one"] * 4


def test_rows_of_every_kind_are_columns_again(pool):
    table = TABLES["pandas"]()
    for rows in (table.to_dict("records"), table.itertuples(index=False), [row for _, row in table.iterrows()]):
        results = pool.map(rows, prompt=lambda row: row["text"] if hasattr(row, "keys") else row.text)
        (row,) = results.to_dicts(row=True)
        assert (row["id"], row["text"], row["answer_text"]) == (1, "one", "one")


@pytest.mark.parametrize("kind", MISSING)
def test_an_empty_cell_fails_alone_and_unsent(pool, chatpool_server, kind):
    cell = MISSING[kind]()
    runs = [
        pool.map(["a", cell]),
        pool.map(["a", cell], prompt=lambda text: f"about {text}"),
        pool.map(["a", {"text": cell}], prompt=lambda row: row["text"] if isinstance(row, dict) else row),
        pool.embed(["a", cell]),
        list(pool.imap(["a", cell])),
    ]
    for run in runs[:4]:
        assert [outcome.ok for outcome in run.outcomes] == [True, False]
        assert "item 1: " in str(run.outcomes[1].error)
        assert "the cell is empty" in str(run.outcomes[1].error)
    assert "the cell is empty" in str(runs[4][1].error)
    assert len(chatpool_server.requests) == 5


@pytest.mark.parametrize("kind", ["float", "NA", "None"])
def test_an_empty_cell_in_a_message_is_seen(pool, chatpool_server, kind):
    (outcome,) = pool.map([[{"role": "user", "content": MISSING[kind]()}]]).outcomes
    assert "message 0 of a list item (role 'user'): the cell is empty" in str(outcome.error)
    assert chatpool_server.requests == []


def test_values_of_tables_are_sent_as_json_has_them(pool, chatpool_server):
    pool.chat(
        "hi",
        temperature=the.numpy.float32(0.2),
        top_p=decimal.Decimal("0.5"),
        max_tokens=decimal.Decimal(10),
        seed=the.numpy.int64(7),
        store=the.numpy.bool_(False),
        stop=the.numpy.array(["a", "b"]),
        metadata={
            "id": uuid.UUID(int=1),
            "path": pathlib.PurePosixPath("/x"),
            "color": Color.RED,
            "cell": the.pyarrow.scalar("y"),
            "column": the.pandas.Series([1, 2]),
        },
    )
    body = chatpool_server.requests[0].body
    assert {name: value for name, value in body.items() if name not in ("messages", "model")} == {
        "temperature": 0.2,
        "top_p": 0.5,
        "max_tokens": 10,
        "seed": 7,
        "store": False,
        "stop": ["a", "b"],
        "metadata": {
            "id": "00000000-0000-0000-0000-000000000001",
            "path": "/x",
            "color": "red",
            "cell": "y",
            "column": [1, 2],
        },
    }
    assert type(body["max_tokens"]) is int


UNFIT = {
    "Timestamp": lambda: the.pandas.Timestamp("2026-01-01"),
    "datetime64": lambda: the.numpy.datetime64("2026-01-01"),
    "timedelta64": lambda: the.numpy.timedelta64(1, "D"),
    "NA": MISSING["NA"],
    "NaT": MISSING["NaT"],
    "float32": MISSING["float32"],
    "Decimal": lambda: decimal.Decimal("Infinity"),
    "bytes": lambda: the.numpy.bytes_(b"x"),
    "complex": lambda: 1j,
    "object": object,
    "DataFrame": TABLES["pandas"],
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_json_has_no_form_for_is_named_before_the_run_begins(pool, chatpool_server, kind):
    value = UNFIT[kind]()
    for call in (pool.map, pool.chat, pool.embed):
        with pytest.raises((TypeError, ValueError), match=r"metadata\.x\[1\] is "):
            call(["a"], metadata={"x": [1, value]})
    (outcome,) = pool.map([{"messages": [{"role": "user", "content": "a"}], "seed": [value]}]).outcomes
    assert "seed[0] is " in str(outcome.error)
    assert chatpool_server.requests == []


def test_token_numbers_of_numpy_are_embedded(pool, chatpool_server):
    assert len(pool.embed([the.numpy.array([1, 2]), [the.numpy.int64(3)]])) == 2
    assert chatpool_server.requests[0].body["input"] == [[1, 2], [3]]


def test_a_prompt_that_is_a_list_of_messages_is_a_chat(pool, chatpool_server):
    messages = [{"role": "user", "content": "hi"}]
    assert pool.map([{"prompt": messages, "temperature": 0}])[0].text == "hi"
    (request,) = chatpool_server.requests
    assert (request.path, request.body["messages"]) == ("/v1/chat/completions", messages)
    assert "prompt" not in request.body


def test_rows_that_are_named_tuples_are_told_of_prompt(pool):
    (outcome,) = pool.map(TABLES["pandas"]().itertuples()).outcomes
    assert "pass prompt=" in str(outcome.error)
    assert "got a row with the fields Index, id, text" in str(outcome.error)
