"""Outputs that are tables: the input's columns with the answers beside them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import ChatPool, ConfigurationError, batch
from chatpool.batch.output_formats import CSV, JSONL, SQLITE, TEXT, Column, Spool, write_table
from chatpool.testing import Answer, Error
from chatpool.testing.model import chat_completion

REVIEWS = "id,review,stars\n7,Great phone,5\n8,Broke,1\n9,=SUM(A1),\n"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text(REVIEWS)
    return path


@pytest.fixture
def run(chatpool_server, tmp_path):
    def start(source, name, **options):
        options.setdefault("column", "review" if str(source).endswith(".csv") else None)
        model = options.pop("model", "m")
        with ChatPool(model, base_url=chatpool_server.base_url, max_workers=2, retry=0) as pool:
            return batch.run(source, tmp_path / name, pool=pool, progress=False, **options)

    return start


def table(path, delimiter=","):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_csv_has_the_columns_of_the_input_and_then_its_own(run, source, tmp_path, chatpool_server):
    chatpool_server.set_script({"Broke": Error(400, message="too rude")})
    result = run(source, "out.csv")
    assert (result.succeeded, result.failed, result.errors) == (2, 1, None)
    first, second, third = table(tmp_path / "out.csv")
    assert list(first) == ["id", "review", "stars", "answer", "error", "tokens"]
    assert first == {**first, "id": "7", "review": "Great phone", "stars": "5", "answer": "Great phone", "error": ""}
    assert int(first["tokens"]) > 0
    assert (second["answer"], second["tokens"]) == ("", "")
    assert second["error"].startswith("BadRequestError: HTTP 400")
    assert "too rude" in second["error"]
    assert (third["review"], third["answer"]) == ("'=SUM(A1)", "'=SUM(A1)")
    assert "see the column 'error' of " in result.summary()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.csv.journal", "reviews.csv"]


def test_raw_leaves_formulas(run, source, tmp_path):
    run(source, "out.csv", raw=True)
    assert table(tmp_path / "out.csv")[2]["answer"] == "=SUM(A1)"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\uff1d1", "'\uff1d1"),
        ("-5", "-5"),
        ("+3.2e-7", "+3.2e-7"),
        ("-1,5", "-1,5"),
        ("a=1", "a=1"),
        ("", ""),
    ],
)
def test_what_a_spreadsheet_takes_for_a_formula_is_escaped_and_numbers_are_not(text, written, tmp_path):
    spool = Spool(1)
    spool.add({"a": text})
    with open(tmp_path / "t.csv", "wb") as file:
        write_table(file, "t.csv", CSV, spool, [Column("a", 0, "a")])
    spool.close()
    assert table(tmp_path / "t.csv")[0]["a"] == written


def test_tabs_separate_the_columns_of_tsv(run, source, tmp_path):
    run(source, "out.tsv")
    assert [row["stars"] for row in table(tmp_path / "out.tsv", "\t")] == ["5", "1", ""]


def test_a_database_has_one_table_with_types(run, source, tmp_path, chatpool_server):
    chatpool_server.set_script({"Broke": Error(400)})
    for name in ("out.db", "out.sqlite"):
        run(source, name)
        database = sqlite3.connect(tmp_path / name)
        assert database.execute("select name from sqlite_master").fetchall() == [("answers",)]
        rows = database.execute("select id, answer, error is null, typeof(tokens) from answers").fetchall()
        database.close()
        assert rows == [("7", "Great phone", 1, "integer"), ("8", None, 0, "null"), ("9", "=SUM(A1)", 1, "integer")]


def test_columns_that_differ_in_case_only_are_two_in_a_database(run, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "p", "Answer": "yes", "K": 1, "k": 2}\n')
    run(source, "out.db")
    database = sqlite3.connect(tmp_path / "out.db")
    row = database.execute("select Answer, K, k_2, answer_2 from answers").fetchall()
    database.close()
    assert row == [("yes", 1, 2, "p")]


def test_parquet_has_types(run, source, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    run(source, "out.parquet")
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["id", "review", "stars", "answer", "error", "tokens"]
    assert [str(field.type) for field in found.schema] == ["string"] * 5 + ["int64"]
    assert found["answer"].to_pylist() == ["Great phone", "Broke", "=SUM(A1)"]


def test_parquet_without_pyarrow_is_refused_before_anything_is_sent(run, source, monkeypatch, chatpool_server):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigurationError, match=r"needs pyarrow: pip install 'chatpool\[tables\]'"):
        run(source, "out.parquet")
    assert chatpool_server.requests == []


def test_text_has_a_line_for_each_row(run, tmp_path, chatpool_server):
    source = tmp_path / "in.txt"
    source.write_text("one\nfails\nthree\n")
    chatpool_server.set_script({"fails": Error(400), "three": Answer("three\nlines\r\nhere")})
    result = run(source, "out.txt")
    assert (tmp_path / "out.txt").read_text() == "one\n\nthree\\nlines\\nhere\n"
    assert result.errors == str(tmp_path / "out.txt.errors.jsonl")
    assert json.loads((tmp_path / "out.txt.errors.jsonl").read_text())["custom_id"] == "row-2"
    assert run(source, "out.txt", raw=True).done_before == 3
    assert (tmp_path / "out.txt").read_bytes() == b"one\n\nthree\nlines\r\nhere\n"


def test_lines_of_json_have_the_columns_too(run, tmp_path, read_lines):
    source = tmp_path / "in.jsonl"
    source.write_text('{"custom_id": "a", "prompt": "p", "tags": ["x"]}\n{"custom_id": "b", "prompt": "q"}\n')
    run(source, "out.jsonl", format="jsonl")
    first, second = read_lines(tmp_path / "out.jsonl")
    tokens = first["tokens"]
    assert first == {
        "custom_id": "a",
        "prompt": "p",
        "tags": ["x"],
        "answer": "p",
        "error": None,
        "tokens": tokens,
    }
    assert second["tags"] is None


def test_names_of_the_input_stay_as_they_are(run, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("prompt,answer,Error\np,old,none\n")
    run(source, "out.csv", column="prompt")
    (row,) = table(tmp_path / "out.csv")
    assert list(row) == ["prompt", "answer", "Error", "answer_2", "error_2", "tokens"]
    assert (row["answer"], row["answer_2"]) == ("old", "p")


def test_fields_chooses_columns_and_their_order(run, source, tmp_path):
    run(source, "out.csv", fields="answer,id,row,model,finish_reason,status,attempts,prompt_tokens")
    first, *_ = table(tmp_path / "out.csv")
    assert list(first) == ["answer", "id", "row", "model", "finish_reason", "status", "attempts", "prompt_tokens"]
    assert (first["id"], first["model"], first["finish_reason"], first["status"]) == ("7", "m", "stop", "200")
    assert run(source, "out.txt", fields=["stars"]).succeeded == 3
    assert (tmp_path / "out.txt").read_text() == "5\n1\n\n"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("out.foo", {}, "the ending '.foo' says no format: choose .jsonl"),
        ("out", {}, "a name without an ending says no format"),
        ("out.xlsx", {}, "for a spreadsheet write .csv"),
        ("out.csv", {"format": "xml"}, "format must be one of batch, jsonl"),
        ("out.npy", {"format": "csv"}, "is a matrix; leave out format"),
        ("-", {"format": "sqlite"}, "needs a file"),
        ("out.csv", {"fields": "id,nothing"}, "there is no field 'nothing' to write; there are: id, review, stars, "),
        ("out.csv", {"fields": ""}, "fields must be names of columns"),
        ("out.csv", {"fields": "id,id"}, "fields has 'id' twice"),
        ("out.jsonl", {"fields": "id"}, "lines of the Batch API have none"),
        ("out.txt", {"fields": "id,answer"}, "a text has one field a line"),
        ("out.csv", {"journal": "out.csv"}, "is the output: choose another journal"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_sent(
    source, tmp_path, chatpool_server, name, options, words, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with ChatPool("m", base_url=chatpool_server.base_url) as pool, pytest.raises(ConfigurationError) as error:
        batch.run(source, name, column="review", pool=pool, progress=False, **options)
    assert words in str(error.value)
    assert chatpool_server.requests == []


def test_any_name_will_do_with_a_format(run, source, tmp_path):
    run(source, "out", format="csv")
    assert len(table(tmp_path / "out")) == 3


def test_an_output_that_is_somebody_else_s_is_refused(run, source, tmp_path, chatpool_server):
    (tmp_path / "out.csv").write_text("precious\n")
    with pytest.raises(ConfigurationError, match=r"out\.csv is there already and .*out\.csv\.journal knows nothing"):
        run(source, "out.csv")
    assert (tmp_path / "out.csv").read_text() == "precious\n"
    with pytest.raises(ConfigurationError, match="reviews.csv is the input"):
        run(source, "reviews.csv")
    assert chatpool_server.requests == []


def test_one_journal_serves_every_format(run, source, tmp_path, chatpool_server):
    pytest.importorskip("pyarrow")
    journal = tmp_path / "the.journal"
    run(source, "out.csv", journal=journal)
    for name in ("out.jsonl", "out.parquet", "out.db", "out.txt", "out.tsv"):
        result = run(source, name, journal=journal)
        assert (result.succeeded, result.done_before, result.journal) == (3, 3, str(journal))
        assert (tmp_path / name).stat().st_size > 0
    assert len(chatpool_server.requests) == 3


def test_an_output_of_0_1_0_with_another_ending_goes_on(run, source, tmp_path, chatpool_server):
    run(source, "out.jsonl")
    (tmp_path / "out.journal").rename(tmp_path / "old.out.journal")
    (tmp_path / "out.jsonl").rename(tmp_path / "old.out")
    assert run(source, "old.out").done_before == 3
    assert json.loads((tmp_path / "old.out").read_text().splitlines()[0])["response"]["status_code"] == 200
    (tmp_path / "old.out.journal").rename(tmp_path / "old.csv.journal")
    (tmp_path / "old.out").rename(tmp_path / "old.csv")
    assert run(source, "old.csv").done_before == 3
    assert len(table(tmp_path / "old.csv")) == 3
    assert len(chatpool_server.requests) == 3


def test_a_table_is_in_the_order_of_the_input_and_rows_that_have_left_it_leave_the_table(
    run, tmp_path, chatpool_server
):
    source = tmp_path / "in.csv"
    source.write_text("id,review\n" + "".join(f"{n},text {n}\n" for n in range(30)))
    run(source, "out.csv", id_field="id", limit=10)
    assert [row["id"] for row in table(tmp_path / "out.csv")] == [str(n) for n in range(10)]
    run(source, "out.csv", id_field="id", sample=5)
    found = [int(row["id"]) for row in table(tmp_path / "out.csv")]
    assert found == sorted(found)
    assert set(range(10)) <= set(found)
    source.write_text("id,review\n" + "".join(f"{n},text {n}\n" for n in reversed(range(5, 30))))
    run(source, "out.csv", id_field="id")
    assert [row["id"] for row in table(tmp_path / "out.csv")] == [str(n) for n in reversed(range(5, 30))]
    assert len(chatpool_server.requests) == 30


def test_a_row_that_has_changed_has_no_answer_of_another_text(run, tmp_path, chatpool_server):
    source = tmp_path / "in.csv"
    source.write_text("id,review\na,old\nb,same\n")
    run(source, "out.csv", id_field="id")
    source.write_text("id,review\na,new\nb,same\n")
    chatpool_server.set_script(Error(401))
    assert run(source, "out.csv", id_field="id").fatal is not None
    assert [(row["id"], row["answer"]) for row in table(tmp_path / "out.csv") if row["answer"]] == [("b", "same")]


def test_what_was_done_is_in_the_table_after_a_fatal_error(run, source, tmp_path, chatpool_server):
    chatpool_server.set_script({"Broke": Error(401)})
    with ChatPool("m", base_url=chatpool_server.base_url, max_workers=1, retry=0) as pool:
        result = batch.run(source, tmp_path / "out.csv", column="review", pool=pool, progress=False)
    assert result.fatal is not None
    assert table(tmp_path / "out.csv")[0]["answer"] == "Great phone"


SCHEMA = {"type": "object", "properties": {"mood": {"type": "string"}, "stars": {"type": "integer"}}}


@dataclass
class Mood:
    """What is asked for."""

    mood: str
    stars: int


class Feeling(pydantic.BaseModel):
    """The same."""

    mood: str
    stars: int


@pytest.mark.parametrize(
    "parse", [SCHEMA, Mood, Feeling, json.loads], ids=["schema", "dataclass", "pydantic", "function"]
)
def test_the_fields_of_structured_answers_are_columns(run, source, tmp_path, chatpool_server, parse):
    answers = {
        "Great phone": Answer(
            '```json\n{"mood": "good", "stars": 5}\n```' if parse is not json.loads else '{"mood": "good", "stars": 5}'
        ),
        "Broke": Answer("no idea"),
        "=SUM(A1)": Answer('{"mood": "=evil", "stars": 0}'),
    }
    chatpool_server.set_script(answers)
    result = run(source, "out.csv", parse=parse, max_reasks=0)
    assert (result.succeeded, result.failed) == (2, 1)
    first, second, third = table(tmp_path / "out.csv")
    assert list(first) == ["id", "review", "stars", "mood", "stars_2", "error", "tokens"]
    assert (first["mood"], first["stars"], first["stars_2"]) == ("good", "5", "5")
    assert (second["mood"], second["stars_2"]) == ("", "")
    assert second["error"].startswith("ParseError: ")
    assert int(second["tokens"]) > 0
    assert third["mood"] == "'=evil"


def test_a_text_of_structured_answers_has_their_texts(run, source, tmp_path, chatpool_server):
    chatpool_server.set_script({"Great phone": Answer('{"mood": "good"}'), "=SUM(A1)": Answer("[1]")})
    run(source, "out.txt", parse=json.loads, max_reasks=0)
    assert (tmp_path / "out.txt").read_text() == '{"mood": "good"}\n\n[1]\n'


def test_a_structured_answer_without_fields_is_an_answer(run, source, tmp_path, chatpool_server):
    chatpool_server.set_script(Answer("[1, 2]"))
    run(source, "out.jsonl", format="jsonl", parse=list)
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["answer"] == [1, 2]


def test_calls_of_tools_stand_in_the_place_of_an_answer(run, source, tmp_path, chatpool_server):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    chatpool_server.set_script(Answer(body=chat_completion(None, finish_reason="tool_calls", tool_calls=[call])))
    run(source, "out.jsonl", format="jsonl")
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["answer"] == [{"name": "f", "arguments": '{"x": 1}'}]


def test_vectors_are_lists(run, tmp_path, chatpool_server):
    source = tmp_path / "in.txt"
    source.write_text("one\ntwo\n")
    for form, options in (("jsonl", {}), ("csv", {"encoding_format": "base64"})):
        run(source, f"out.{form}", format=form, url="/v1/embeddings", dimensions=3, **options)
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert len(first["answer"]) == 3
    assert json.loads(table(tmp_path / "out.csv")[0]["answer"]) == pytest.approx(first["answer"], rel=1e-6)
    if pytest.importorskip("pyarrow"):
        run(source, "out.parquet", url="/v1/embeddings", dimensions=3)
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
        assert str(found.schema.field("answer").type) == "list<element: double>"


@pytest.mark.parametrize("name", ["in.csv", "in.xlsx", "in.parquet"])
def test_a_table_of_no_rows_has_its_columns(run, tmp_path, name):
    source = tmp_path / name
    if name == "in.csv":
        source.write_text("review,stars\n")
    elif name == "in.xlsx":
        book = pytest.importorskip("openpyxl").Workbook()
        book.active.append(["review", "stars"])
        book.save(source)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(
            pyarrow.table({"review": pyarrow.array([], pyarrow.string()), "stars": pyarrow.array([], pyarrow.int64())}),
            source,
        )
    run(source, "out.csv", column="review")
    assert (tmp_path / "out.csv").read_text() == "review,stars,answer,error,tokens\n"
    run(source, "out.db", column="review", fields="stars,answer")
    assert rows_of(tmp_path / "out.db") == []


def test_a_database_to_which_others_have_added_is_not_written_anew(run, source, tmp_path, chatpool_server):
    run(source, "out.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "out.db")) as database:
        database.execute("CREATE TABLE notes (text)")
        database.commit()
    asked = len(chatpool_server.requests)
    with pytest.raises(ConfigurationError, match="holds more than the table 'answers'.*table notes.*another output"):
        run(source, "out.db")
    run(source, "more.db", journal=tmp_path / "out.db.journal")
    assert rows_of(tmp_path / "more.db") == rows_of(tmp_path / "out.db")
    assert len(chatpool_server.requests) == asked


def rows_of(path):
    """The rows of the table of answers in a database."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM answers").fetchall()


def test_batch_lines_have_the_columns_of_batch_lines(run, write_rows, tmp_path):
    run(write_rows(2), "out.csv", fields=["custom_id", "url", "answer"])
    assert [row["custom_id"] for row in table(tmp_path / "out.csv")] == ["row 0", "row 1"]


@pytest.mark.slow
def test_processes_write_the_same_table(run, source, tmp_path):
    run(source, "one.csv")
    run(source, "two.csv", processes=2)
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "two.csv").read_text()


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.text(st.sampled_from("\",\n\r\t'=x\u2028"))
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.lists(st.integers() | TEXTS)


@given(st.lists(st.fixed_dictionaries({"a": TEXTS, "b": TEXTS}), min_size=1))
def test_texts_come_back_from_csv(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    write(rows, path, CSV, raw=True)
    assert table(path) == rows


@given(st.lists(st.fixed_dictionaries({"a": VALUES, "b": VALUES}), min_size=1))
def test_each_row_is_a_line_of_json_and_a_row_of_a_database(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("tables")
    write(rows, folder / "t.jsonl", JSONL)

    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    lines = (folder / "t.jsonl").read_bytes().decode("utf-8").splitlines()
    assert [set(json.loads(line, parse_constant=refuse)) for line in lines] == [{"a", "b"}] * len(rows)
    write(rows, folder / "t.db", SQLITE)
    database = sqlite3.connect(folder / "t.db")
    assert database.execute("select count(*) from answers").fetchone() == (len(rows),)
    database.close()


@given(st.lists(st.fixed_dictionaries({"a": VALUES}), min_size=1))
def test_each_row_is_a_line_of_text(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    write(rows, path, TEXT)
    assert len(path.read_bytes().decode("utf-8").splitlines()) == len(rows)


@given(st.lists(st.fixed_dictionaries({"a": VALUES, "b": VALUES}), min_size=1))
def test_each_row_is_a_row_of_parquet(tmp_path_factory, rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path_factory.mktemp("parquet") / "t.parquet"
    write(rows, path, "parquet")
    assert parquet.read_table(path).num_rows == len(rows)


def write(rows, path, form, **options):
    spool = Spool(1)
    for row in rows:
        spool.add(row)
    with open(path, "wb") as file:
        write_table(file, str(path), form, spool, [Column(name, 0, name) for name in rows[0]], **options)
    spool.close()


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**53 + 1, 2**70, 10**400])
def test_a_list_of_integers_that_floats_cannot_hold_is_a_text_of_parquet(tmp_path, number):
    parquet = pytest.importorskip("pyarrow.parquet")
    write([{"a": [number]}], tmp_path / "t.parquet", "parquet")
    (found,) = parquet.read_table(tmp_path / "t.parquet")["a"].to_pylist()
    assert found == ([number] if abs(number) <= 2**53 else f"[{number}]")


def test_a_nul_ends_no_table(tmp_path):
    write([{"a": "x\0y"}], tmp_path / "t.csv", CSV)
    assert table(tmp_path / "t.csv") == [{"a": "x\ufffdy"}]


def test_standard_output_may_take_text_only_as_in_a_notebook(run, source, tmp_path, monkeypatch, chatpool_server):
    notebook = io.StringIO()
    monkeypatch.setattr("sys.stdout", notebook)
    with ChatPool("m", base_url=chatpool_server.base_url) as pool:
        for form in ("csv", "batch"):
            batch.run(source, "-", format=form, column="review", pool=pool, progress=False)
    lines = notebook.getvalue().splitlines()
    assert lines[0] == "id,review,stars,answer,error,tokens"
    assert json.loads(lines[-1])["response"]["status_code"] == 200


def test_a_closed_standard_output_is_refused(source, monkeypatch, chatpool_server):
    monkeypatch.setattr("sys.stdout", None)
    options = {"column": "review", "model": "m", "base_url": chatpool_server.base_url, "progress": False}
    with pytest.raises(ConfigurationError, match="standard output is closed"):
        batch.run(source, "-", **options)
    assert chatpool_server.requests == []


@pytest.mark.parametrize("form", [CSV, JSONL, SQLITE, TEXT, "parquet"])
def test_whatever_a_model_calls_a_field_it_spoils_no_table(tmp_path, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    row = {
        "": 1,
        "\0": 2,
        "\ud800": "\udfff",
        'a"b': [1, "x"],
        "select": {"k": 1},
        "rowid": True,
        "a\nb": 2**70,
        "'": 0.5,
    }
    write([row, dict.fromkeys(row)], tmp_path / "t", form)
    assert (tmp_path / "t").stat().st_size > 0


class TestRowsThatLeaveAndComeBack:
    """The table follows the input; the journal keeps what has left it."""

    BOTH = "id,review\na,one\nb,two\n"
    ONE = "id,review\nb,two\n"

    @pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.db", "out.txt", "out.jsonl"])
    def test_a_row_that_has_left_is_in_no_output_and_is_not_paid_again(self, run, tmp_path, chatpool_server, name):
        source, options = tmp_path / "in.csv", {"id_field": "id", "column": "review"}
        format_ = "jsonl" if name == "out.jsonl" else None
        source.write_text(self.BOTH)
        run(source, name, format=format_, **options)
        both = said(tmp_path / name)
        source.write_text(self.ONE)
        result = run(source, name, format=format_, **options)
        assert (result.rows, result.done_before, result.removed_rows, result.changed) == (1, 1, 1, 0)
        assert "1 has left the input" in result.summary()
        assert said(tmp_path / name) == both[1:]
        source.write_text(self.BOTH)
        result = run(source, name, format=format_, **options)
        assert (result.rows, result.done_before, result.removed_rows, result.changed) == (2, 2, 0, 0)
        assert said(tmp_path / name) == both
        assert len(chatpool_server.requests) == 2

    @pytest.mark.parametrize("format_", ["batch", "csv", "jsonl"])
    def test_of_standard_input_too(self, run, tmp_path, chatpool_server, monkeypatch, capsys, format_):
        said_by_run = []
        for content in (self.BOTH, self.ONE, self.BOTH):
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
            with ChatPool("m", base_url=chatpool_server.base_url, retry=0) as pool:
                batch.run(
                    *("-", "-"),
                    pool=pool,
                    progress=False,
                    format=format_,
                    journal=tmp_path / "run.journal",
                    id_field="id",
                    column="review",
                    in_order=True,
                )
            said_by_run.append(capsys.readouterr().out)
        first, second, third = said_by_run
        assert first == third
        assert "one" not in second
        assert "two" in second
        assert len(chatpool_server.requests) == 2

    def test_lines_that_come_back_are_printed_once(self, run, tmp_path, chatpool_server, monkeypatch, capsys):
        for content in (self.BOTH, self.ONE, self.BOTH):
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
            with ChatPool("m", base_url=chatpool_server.base_url, retry=0) as pool:
                batch.run("-", "-", pool=pool, progress=False, journal=tmp_path / "j", id_field="id", column="review")
            printed = capsys.readouterr().out.splitlines()
            assert len(printed) == content.count("\n") - 1

    def test_a_row_that_was_changed_is_said_to_be_paid_again(self, run, tmp_path, chatpool_server, caplog):
        source, options = tmp_path / "in.csv", {"id_field": "id", "column": "review"}
        source.write_text(self.BOTH)
        run(source, "out.csv", **options)
        source.write_text(self.BOTH.replace("two", "three"))
        result = run(source, "out.csv", **options)
        assert (result.changed, result.done_before) == (1, 1)
        assert "row 'b' has an answer to another request" in caplog.text
        assert [row["answer"] for row in table(tmp_path / "out.csv")] == ["one", "three"]

    def test_empty_cells_are_rows_of_the_table_with_their_error(self, run, tmp_path, chatpool_server, monkeypatch):
        content = "id,review\na,\n,\nb,two\n"
        (tmp_path / "in.csv").write_text(content)
        result = run(tmp_path / "in.csv", "out.csv")
        assert (result.failed, result.blank_rows) == (1, 1)
        rows = table(tmp_path / "out.csv")
        assert [row["id"] for row in rows] == ["a", "b"]
        assert "the cell is empty" in rows[0]["error"]
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        run("-", "again.csv", column="review")
        assert (tmp_path / "again.csv").read_text() == (tmp_path / "out.csv").read_text()


@pytest.mark.parametrize("name", ["plain.csv", "odd.csv", "mixed.jsonl", "blank.txt"])
def test_what_version_0_1_0_has_answered_is_in_a_table_and_not_sent_again(run, tmp_path, chatpool_server, name):
    for path in (Path(__file__).parent / "written_by_0_1_0").glob(f"{name}*"):
        shutil.copy(path, tmp_path)
    options = {"column": "prompt"} if name.endswith(".csv") else {}
    if name == "mixed.jsonl":
        options = {"model": "embed-m", "skip_bad_lines": True}
    result = run(tmp_path / name, "out.csv", journal=tmp_path / f"{name}.out.journal", **options)
    assert chatpool_server.requests == []
    assert result.done_before == result.rows > 0
    rows = table(tmp_path / "out.csv")
    assert len(rows) == result.rows
    assert sum(row["answer"] != "" for row in rows) == result.succeeded


def said(path):
    """The answers in an output of any form."""
    if path.suffix == ".csv":
        return [row["answer"] for row in table(path)]
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return parquet.read_table(path)["answer"].to_pylist()
    if path.suffix == ".db":
        with contextlib.closing(sqlite3.connect(path)) as database:
            return [answer for (answer,) in database.execute("select answer from answers")]
    lines = path.read_text().splitlines()
    return lines if path.suffix == ".txt" else [json.loads(line)["answer"] for line in lines]
