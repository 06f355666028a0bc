"""Files of every kind: tables with separators and empty cells, Excel, Parquet, encodings, and what is no input."""

from __future__ import annotations

import builtins
import csv
import datetime
import decimal
import gzip
import io
import json
import re
import sys
import zipfile

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chatpool
from chatpool import ChatPool, ConfigurationError
from chatpool.batch.input_files import BLANK, Source
from chatpool.batch.input_tables import delimiter_of
from chatpool.testing import Error

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from(',;\t|"\r\n '), max_size=8)


@pytest.fixture
def ask(chatpool_server, tmp_path):
    """``ask(content, name, **options)`` runs an input; returns the result and the prompts that were sent, in order."""

    def run(content, name="in.csv", **options):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        with ChatPool("m", base_url=chatpool_server.base_url, max_workers=1) as pool:
            result = chatpool.batch.run(
                path, tmp_path / "out.jsonl", pool=pool, progress=False, in_order=True, **options
            )
        return result, [request.prompt for request in chatpool_server.requests]

    return run


@pytest.fixture
def errors(tmp_path, read_lines):
    """The names and messages of the errors in the output."""
    return lambda: {line["custom_id"]: line["error"]["message"] for line in read_lines(tmp_path / "out.errors.jsonl")}


# -- separators -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("id;Frage (kurz, klar);Notiz\n1;hello;x\n2;bye, then;y\n", ";"),
        ("id;Frage (a, b, c)\n1;hello\n2;bye, then\n", ";"),
        ('id;"Frage, kurz"\n1;"a, b"\n2;"c, d"\n', ";"),
        ('"Frage\n(kurz)";id\nhello;1\n', ";"),
        ('"a; b; c","d"\n1,2\n', ","),
        ('"say ""a, b, c""";x\n1;2\n', ";"),
        ("a\tb, c\n1\t2\n", "\t"),
        ("a|b, c\n1|2\n3|4\n", "|"),
        ("prompt\nhello, you\n", ","),
        ('"id";"prompt"\n"1";"a, b"\n', ";"),
        ('"id"\t"prompt"', "\t"),
        ('"id, old"|"prompt"\r"1"|"a, b"\r', "|"),
        ("id;prompt\n1;a, b\u2028c\x0bd\x85e\n2;f, g\n", ";"),
        ("", ","),
    ],
)
def test_the_separator_is_what_the_lines_have_in_common_outside_quotes(content, delimiter):
    assert delimiter_of(content) == delimiter


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.booleans(),
)
def test_a_table_with_all_cells_in_quotes_is_read_whatever_is_in_them(tmp_path_factory, rows, delimiter, end, mark):
    path = tmp_path_factory.mktemp("quoted") / "in.csv"
    with open(path, "w", encoding="utf-8-sig" if mark else "utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([("a, b", "c; d|e", "prompt"), *rows])
    read = [list(line.value.values()) for line in Source(str(path)) if line.value is not BLANK]
    assert read == [list(row) for row in rows if any(map(str.strip, row))]


@pytest.mark.parametrize("line", ["sep=;\n", "sep=;\r\n", '"sep=;"\n', "SEP=;\n", "\ufeffsep=;\n"])
def test_a_line_that_names_the_separator_is_read(ask, line):
    result, prompts = ask(line + "prompt, all;x\na, b;1\nc;2,3,4\n", column="prompt, all")
    assert (prompts, result.rows) == (["a, b", "c"], 2)


@pytest.mark.parametrize("delimiter", [":", "tab", "\\t", "\t", "pipe"])
def test_the_separator_can_be_said(ask, delimiter):
    mark = {"tab": "\t", "\\t": "\t", "pipe": "|"}.get(delimiter, delimiter)
    assert ask(f"x, y, z{mark}prompt\n1,2{mark}hi\n", delimiter=delimiter)[1] == ["hi"]


@pytest.mark.parametrize("name", ["in.txt", "data"])
def test_a_file_with_a_separator_or_a_column_is_a_table_whatever_its_name(ask, name):
    assert ask("x:prompt\n1:hi\n", name, delimiter=":")[1] == ["hi"]
    assert ask("x;prompt\n1;ho\n", name, column="prompt")[1] == ["hi", "ho"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delimiter": ";;"}, "delimiter must be one character"),
        ({"delimiter": '"'}, "delimiter must be one character"),
        ({"delimiter": ""}, "delimiter must be one character"),
        ({"encoding": "cp9999"}, "encoding must be the name of an encoding of text"),
        ({"encoding": "hex"}, "encoding must be the name of an encoding of text"),
    ],
)
def test_options_of_text_that_cannot_work_are_refused(ask, options, words):
    with pytest.raises(ConfigurationError, match=words):
        ask("prompt\nhi\n", **options)


def test_a_separator_for_json_is_refused(ask):
    with pytest.raises(ConfigurationError, match="delimiter is for CSV"):
        ask('{"prompt": "hi"}\n', "in.jsonl", delimiter=";")


def test_columns_without_a_name_and_trailing_separators_do_no_harm(ask):
    assert ask(",prompt,,\n0,hi,,\n1,ho\n2,hu,,,,\n")[1] == ["hi", "ho", "hu"]


# -- empty rows and cells -------------------------------------------------------------------------------------------


def test_rows_that_are_nothing_but_separators_are_counted_and_not_sent(ask, tmp_path, ids):
    result, prompts = ask("id,prompt\n1,hello\n,\n , \n2,bye\n,\n,\n")
    assert prompts == ["hello", "bye"]
    assert (result.rows, result.blank_rows, result.bad_line_count) == (2, 4, 0)
    assert "4 blank rows were left out" in result.summary()
    assert ids(tmp_path / "out.jsonl") == ["row-2", "row-3"]


@pytest.mark.parametrize("template", [None, "Say {prompt}"])
def test_a_row_whose_cell_is_empty_fails_alone(ask, errors, template):
    result, prompts = ask('id,prompt\n1,hello\n2,\n3,"  "\n4,bye\n', template=template)
    assert prompts == (["hello", "bye"] if template is None else ["Say hello", "Say bye"])
    assert (result.succeeded, result.failed) == (2, 2)
    expected = "the cell is empty: there is nothing in 'prompt'; fill it, or leave the row out"
    assert errors() == {"row-3": f"line 3: {expected}", "row-4": f"line 4: {expected}"}
    again = ask(None, template=template)
    assert (again[0].done_before, len(again[1])) == (4, 2)


def test_a_cell_that_is_filled_later_is_sent(ask, errors):
    ask("id,prompt\n1,\n")
    assert errors()
    assert ask("id,prompt\n1,hi\n")[0].succeeded == 1
    assert not errors()


@pytest.mark.parametrize("line", ['{"prompt": ""}', '{"input": ""}', '{"custom_id": "row-1", "body": {"prompt": ""}}'])
def test_an_empty_text_in_json_fails_alone(ask, errors, line):
    result, prompts = ask(line + '\n{"custom_id": "b", "prompt": "hi"}\n', "in.jsonl")
    assert (prompts, result.failed) == (["hi"], 1)
    assert errors()["row-1"].startswith("line 1: the cell is empty")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": null}', "'prompt' is null: the cell is empty"),
        ('{"input": null}', "'input' is null"),
        ('{"messages": null, "prompt": null}', "'messages' is null"),
        ('{"prompt": 5}', "'prompt' must be a text or a list of messages, got a number"),
        ('{"prompt": 0}', "got a number"),
        ('{"prompt": true}', "got true or false"),
        ('{"prompt": []}', "got nothing"),
        ('{"messages": "hi"}', "'messages' must be a list of messages, got a text"),
        ('{"prompt": {"0": "a"}}', "orient='records', lines=True"),
        ('{"custom_id": "a", "body": {"prompt": null}}', "'prompt' is null"),
        ('{"prompt": "a", "n": ' + "9" * 5000 + "}", "a whole number of more than 4,300 digits"),
        ('{"prompt": "a", "n": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 200 deep"),
        ('{"prompt": "a", "n": ' + "[" * 300 + "]" * 300 + "}", "nested more than 200 deep"),
        ('{"prompt": "a", "n": NaN}', "NaN is no value of it"),
        ('{"prompt": "a", "n": -Infinity}', "-Infinity is no value of it"),
        ('{"prompt": "a", "metadata": {"n": 1e999}}', "1e999 is beyond the numbers of a float"),
        ('{"prompt": "a \\ud83d b"}', r"\ud83d is half of a surrogate pair"),
        ('{"prompt": "a", "metadata": {"\\uDC00": 1}}', r"\udc00 is half of a surrogate pair"),
    ],
)
@pytest.mark.usefixtures("no_collection")
def test_a_line_of_json_that_cannot_be_used_is_named_and_can_be_left_out(ask, chatpool_server, line, reason):
    content = '{"prompt": "a"}\n' + line + '\n{"prompt": "b"}\n'
    with pytest.raises(ConfigurationError, match="line 2 of ") as caught:
        ask(content, "in.jsonl")
    assert reason in str(caught.value)
    assert chatpool_server.requests == []
    result, prompts = ask(None, "in.jsonl", skip_bad_lines=True)
    assert (prompts, result.bad_line_count, result.bad_lines[0][0]) == (["a", "b"], 1, 2)


def test_pairs_of_surrogates_and_numbers_of_many_digits_are_taken(ask):
    result, prompts = ask('{"prompt": "\\ud83d\\ude00", "id": ' + "9" * 400 + ', "x": 1e300}\n', "in.jsonl")
    assert (prompts, result.succeeded) == (["\U0001f600"], 1)


MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"prompt": MESSAGES}, {}),
        ({"prompt": MESSAGES, "completion": MESSAGES, "temperature": 0}, {}),
        ({"prompt": MESSAGES}, {"url": "/v1/chat/completions"}),
        ({"prompt": MESSAGES, "messages": None}, {}),
        ({"prompt": None, "messages": MESSAGES}, {}),
        ({"custom_id": "a", "body": {"prompt": MESSAGES}}, {}),
        ({"talk": MESSAGES}, {"column": "talk"}),
    ],
)
def test_messages_by_any_name_are_a_chat(ask, chatpool_server, row, options):
    ask(json.dumps(row) + "\n", "in.jsonl", **options)
    (request,) = chatpool_server.requests
    assert (request.path, request.body["messages"]) == ("/v1/chat/completions", MESSAGES)
    assert set(request.body) <= {"messages", "model", "temperature"}


def test_a_list_of_messages_a_line_is_a_chat(ask, chatpool_server, errors):
    talk = [{"role": "system", "content": "be brief"}, *MESSAGES]
    result, _ = ask(json.dumps(MESSAGES) + "\n" + json.dumps(talk) + "\n", "in.jsonl")
    assert result.kind == "chats, a list of messages a line"
    assert [request.body["messages"] for request in chatpool_server.requests] == [MESSAGES, talk]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "system", "content": None}, {"role": "user", "content": None}]},
        {"prompt": [{"role": "assistant", "content": None}, {"role": "user", "content": None}]},
        [{"role": "user", "content": "hi"}, {"role": "user", "content": None}],
        {"custom_id": "row-1", "body": {"messages": [{"role": "assistant"}, {"role": "user", "content": None}]}},
        {
            "custom_id": "row-1",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "assistant"}, {"role": "user", "content": None}]},
        },
    ],
)
def test_a_message_that_asks_nothing_fails_alone(ask, errors, row):
    result, prompts = ask(json.dumps(row) + '\n{"custom_id": "b", "prompt": "hi"}\n', "in.jsonl")
    assert (prompts, result.failed) == (["hi"], 1)
    assert "line 1: the cell is empty: there is nothing in 'messages[1].content'" in errors()["row-1"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hi\n", "lines of text have no fields"),
        ('{"custom_id": "a", "url": "/v1/chat/completions", "body": {"messages": []}}\n', "they have their custom_id"),
    ],
)
def test_a_field_that_cannot_name_the_rows_is_refused(ask, line, why):
    with pytest.raises(ConfigurationError, match=f"id_field 'uid' cannot name the rows of .*: {why}"):
        ask(line, "in", id_field="uid")


@pytest.mark.parametrize(
    ("line", "options", "path"),
    [
        ('{"input": "hi"}', {"model": "text-embedding-3-small"}, "/v1/embeddings"),
        ('{"custom_id": "a", "body": {"input": "hi"}}', {"model": "text-embedding-3-small"}, "/v1/embeddings"),
        ('{"input": "hi", "model": "gpt-4o-mini"}', {"model": "text-embedding-3-small"}, "/v1/responses"),
        ('{"input": "hi"}', {"model": "gpt-4o-mini"}, "/v1/responses"),
        ('{"input": "hi"}', {"defaults": {"model": "text-embedding-3-small"}}, "/v1/embeddings"),
    ],
)
def test_an_input_goes_to_embeddings_where_the_model_says_so(chatpool_server, tmp_path, line, options, path):
    (tmp_path / "in.jsonl").write_text(line + "\n")
    chatpool.batch.run(
        tmp_path / "in.jsonl", tmp_path / "out.jsonl", base_url=chatpool_server.base_url, progress=False, **options
    )
    assert [request.path for request in chatpool_server.requests] == [path]


# -- encodings ------------------------------------------------------------------------------------------------------

UMLAUTS = 'id;Größe\n1;"riesig\ngroß"\n2;klein\n'


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-8", "gbk", "utf-8-sig"])
def test_the_encoding_can_be_said(ask, encoding):
    text = UMLAUTS if encoding != "gbk" else UMLAUTS.replace("ö", "中").replace("ß", "文")
    column = text.split(";")[1].split("\n")[0]
    result, prompts = ask(text.encode(encoding), encoding=encoding, column=column)
    assert prompts == [text.split('"')[1], "klein"]
    assert result.bad_line_count == 0


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl"])
def test_lines_of_another_encoding(ask, name):
    lines = ["größer", "klein"] if name == "in.txt" else ['{"prompt": "größer"}', '{"prompt": "klein"}']
    for encoding in ("cp1252", "utf-16"):
        assert ask("\n\n".join(lines).encode(encoding), name, encoding=encoding)[1] == ["größer", "klein"]


@pytest.mark.parametrize("name", ["in.csv", "in.txt", "in.jsonl"])
@pytest.mark.parametrize("line", [1, 2, 900])
def test_a_file_that_is_not_utf_8_is_said_to_be_so_wherever_the_letters_stand(ask, chatpool_server, name, line):
    plain, odd = ('{"prompt": "x"}', '{"prompt": "ö"}') if name == "in.jsonl" else ("x,y", "ö,y")
    lines = [odd if number == line else plain for number in range(1, 1001)]
    options = {"column": "y"} if name == "in.csv" else {}
    with pytest.raises(ConfigurationError, match=r"not UTF-8.*--encoding cp1252"):
        ask("\n".join(lines).encode("cp1252"), name, **options)
    assert chatpool_server.requests == []


def test_what_is_not_of_the_encoding_that_was_named_is_said(ask):
    with pytest.raises(ConfigurationError, match="not ascii; name the encoding that it has"):
        ask("prompt\ngrößer\n", encoding="ascii")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("line", ["prompt\thow\nhello\tshort\n", "提示\n你好\n"])
def test_utf_16_with_a_mark_is_named(ask, encoding, line):
    content = f"\ufeff{line}".encode(encoding)
    with pytest.raises(ConfigurationError, match="is UTF-16 text: .*--encoding utf-16[)]"):
        ask(content)
    assert ask(content, encoding="utf-16", column=line.split()[0])[0].succeeded == 1


def test_utf_16_without_a_mark_is_told_from_a_picture(ask):
    with pytest.raises(ConfigurationError, match="NUL bytes.*--encoding utf-16-le"):
        ask("prompt\nhello\n".encode("utf-16-le"), "in.txt")


# -- what is no input -----------------------------------------------------------------------------------------------


def zipped(*names):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 3000)
    return packed.getvalue()


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.txt", "in"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "a picture"),
        (b"\xff\xd8\xff\xe0" + bytes(range(256)), "a picture"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "a picture"),
        (b"%PDF-1.7\n%", "a PDF document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 500, "Excel or Word: save the sheet"),
        (b"SQLite format 3\x00" + b"\x00" * 80, "an SQLite database: export"),
        (b"ARROW1\x00\x00", "Arrow"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "numpy"),
        (b"\x80\x04\x95\x10\x00", "pickle"),
        (b"(\xb5/\xfd\x04\x00", "zstd: unpack"),
        (zipped("word/document.xml"), "a Word document"),
        (zipped("mimetype", "content.xml"), "an OpenDocument file"),
        (zipped("prompts.jsonl"), "a zip archive: unpack"),
        (b"\x00" * 100, "no text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_no_rows_are_named_with_what_to_do(ask, chatpool_server, name, content, words):
    for data in (content, gzip.compress(content)):
        for options in ({}, {"skip_bad_lines": True}):
            with pytest.raises(ConfigurationError, match=f" is .*{words}") as caught:
                ask(data, name, **options)
            assert "leave such lines out" not in str(caught.value)
    assert chatpool_server.requests == []


@pytest.mark.parametrize("name", ["in.json", "in.jsonl", "in"])
@pytest.mark.parametrize(
    "content",
    [
        json.dumps([{"prompt": "a"}, {"prompt": "b"}]),
        json.dumps([{"prompt": "a"}]),
        json.dumps([{"prompt": "a"}] * 5),
        json.dumps([{"id": 1, "text": "a"}] * 5),
        json.dumps([{"prompt": "a"}, {"prompt": "b"}], indent=1),
        '[{"prompt": "a"},\n{"prompt": "b"}]\n',
        '\n[\n{"prompt": "a"}\n]\n',
        '["a", "b"]',
        '["a", null]\n',
        "[]",
        '[["a", "b"], ["c", "d"]]\n',
    ],
)
def test_a_json_array_is_named(ask, chatpool_server, name, content):
    with pytest.raises(ConfigurationError, match="is a JSON array.*on a line of its own.*jq") as caught:
        ask(content, name)
    assert "leave such lines out" not in str(caught.value)
    assert chatpool_server.requests == []


def test_an_object_over_several_lines_and_a_page_are_named(ask):
    with pytest.raises(ConfigurationError, match="one JSON object over several lines"):
        ask(json.dumps({"prompt": "a"}, indent=2), "in.json")
    with pytest.raises(ConfigurationError, match="a page of HTML"):
        ask("<!DOCTYPE html>\n<html><body>Sign in</body></html>\n")


def test_a_data_frame_in_place_of_a_file_is_refused(chatpool_server, tmp_path):
    with pytest.raises(TypeError, match="input must be the path of a file, got DataFrame"):
        chatpool.batch.run(pytest.importorskip("pandas").DataFrame(), tmp_path / "out.jsonl", base_url="http://x/v1")


# -- Excel and Parquet ----------------------------------------------------------------------------------------------


def workbook(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def test_an_excel_workbook_is_read(ask, tmp_path, errors, ids):
    rows = [["id", "prompt", "when"], [7, "hi", datetime.date(2026, 1, 2)], [], [8.5, 42, None], [9, None, "x"]]
    workbook(tmp_path / "in.xlsx", [*rows, [None, " "], [10, True, ""]])
    result, prompts = ask(None, "in.xlsx", id_field="id")
    assert result.kind == "Excel, prompts in column 'prompt'"
    assert prompts == ["hi", "42", "TRUE"]
    assert ids(tmp_path / "out.jsonl") == ["7", "8.5", "10"]
    assert errors() == {"9": "row 5: the cell is empty: there is nothing in 'prompt'; fill it, or leave the row out"}
    assert result.blank_rows == 1
    assert ask(None, "in.xlsx", id_field="id")[0].done_before == 4


def test_a_template_over_a_workbook_of_another_name(ask, tmp_path):
    workbook(tmp_path / "in.csv", [["city", "since"], ["Rome", datetime.datetime(2026, 1, 2)]])
    assert ask(None, "in.csv", template="{city} since {since}")[1] == ["Rome since 2026-01-02"]


def test_the_first_sheet_that_is_not_hidden_is_read_and_said(ask, tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["prompt"])
    book.active.append(["hidden"])
    book.active.sheet_state = "hidden"
    for title in ("Reviews", "Notes"):
        sheet = book.create_sheet(title)
        sheet.append(["prompt"])
        sheet.append([title])
    book.save(tmp_path / "in.xlsx")
    result, prompts = ask(None, "in.xlsx")
    assert (result.kind, prompts) == ("Excel, sheet 'Reviews' of 2, prompts in column 'prompt'", ["Reviews"])


def test_an_empty_sheet_before_others_is_no_input(ask, tmp_path, chatpool_server):
    book = openpyxl.Workbook()
    book.create_sheet("Reviews").append(["prompt"])
    book.save(tmp_path / "in.xlsx")
    with pytest.raises(ConfigurationError, match="the sheet 'Sheet' of .* is empty, and there are others .'Reviews'"):
        ask(None, "in.xlsx")


@pytest.mark.parametrize("options", [{}, {"template": "{prompt}"}, {"column": "text", "id_field": "prompt"}])
def test_a_formula_without_a_value_is_no_prompt_and_no_empty_cell(ask, tmp_path, chatpool_server, options):
    workbook(tmp_path / "in.xlsx", [["prompt", "text"], ["plain", "a"], ['="Say " & B3', "b"]])
    with pytest.raises(ConfigurationError, match="row 3 of .* no program has computed the formula in A3"):
        ask(None, "in.xlsx", **options)
    assert not chatpool_server.requests
    result, prompts = ask(None, "in.xlsx", skip_bad_lines=True, **options)
    assert (len(prompts), result.bad_line_count) == (1, 1)


def test_formulas_do_no_harm_in_other_columns_nor_with_their_values(ask, tmp_path, errors):
    rows = [["prompt", "sum"], ["hi", "=1+1"], ["=A2", None], ['=IF(1,"","x")', "ho"]]
    packed = zipfile.ZipFile(workbook(tmp_path / "plain.xlsx", rows))
    with packed, zipfile.ZipFile(tmp_path / "in.xlsx", "w") as computed:
        for name in packed.namelist():
            data = packed.read(name)
            # As spreadsheet programs write them: a text, and an empty one.
            for cell, value in ((b"A3", b"hi"), (b"A4", b"")):
                data = re.sub(
                    b'<c r="%s">(<f>[^/]*</f>)<v */>' % cell, rb'<c r="%s" t="str">\1<v>%s</v>' % (cell, value), data
                )
            computed.writestr(name, data)
    assert ask(None, "in.xlsx")[1] == ["hi", "hi"]
    assert list(errors()) == ["row-4"]
    assert "the cell is empty" in errors()["row-4"]


def test_ends_of_lines_in_cells_are_unescaped(ask, tmp_path):
    workbook(tmp_path / "in.xlsx", [["prompt"], ["a_x000D_\nb_x005F_x000D_"]])
    assert ask(None, "in.xlsx")[1] == ["a\r\nb_x000D_"]


@pytest.mark.parametrize("options", [{"encoding": "cp1252"}, {"delimiter": ";"}])
def test_options_of_text_are_refused_for_a_workbook(ask, tmp_path, options):
    workbook(tmp_path / "in.xlsx", [["prompt"], ["hi"]])
    with pytest.raises(ConfigurationError, match="(encoding|delimiter) is for text, and .* is a file of Excel"):
        ask(None, "in.xlsx", **options)


def test_cells_of_parquet_that_json_has_no_form_for_do_no_harm_unless_they_are_sent(ask, tmp_path, read_lines):
    rows = {
        "prompt": [b"hi"],  # as Hive writes texts
        "picture": [b"\xff\xd8\xff"],
        "image": [{"bytes": b"\xff\x00", "path": None}],
        "score": [float("inf")],
        "pairs": pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "took": [datetime.timedelta(hours=1)],
        "price": [decimal.Decimal("1.10")],
        "exact": [decimal.Decimal("12345678901234567890.123")],
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "in.parquet")
    assert ask(None, "in.parquet")[1] == ["hi"]
    with ChatPool("m", base_url="http://127.0.0.1:1/v1") as pool:  # nothing is sent again
        chatpool.batch.run(
            tmp_path / "in.parquet",
            tmp_path / "table.jsonl",
            pool=pool,
            format="jsonl",
            journal=tmp_path / "out.journal",
            progress=False,
        )
    expected = {
        "prompt": "hi",
        "picture": "/9j/",
        "image": {"bytes": "/wA="},
        "score": None,
        "pairs": [["a", 1]],
        "took": "1:00:00",
        "price": 1.1,
        "exact": "12345678901234567890.123",
    }
    assert read_lines(tmp_path / "table.jsonl")[0].items() >= expected.items()
    for options in ({"column": "picture"}, {"template": "{picture}"}, {"template": "{score}"}):
        with pytest.raises(ConfigurationError, match="row 1 of .* no text"):
            ask(None, "in.parquet", **options)


def test_two_columns_of_one_name_in_parquet_are_refused(ask, tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["prompt", "prompt"])
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(ConfigurationError, match="two columns 'prompt'"):
        ask(None, "in.parquet")


def parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_a_parquet_file_is_read(ask, tmp_path, errors):
    rows = [{"n": 1, "text": "hi", "at": datetime.date(2026, 1, 2)}, {"n": 2, "text": None, "at": None}, {"n": None}]
    parquet(tmp_path / "in.parquet", rows)
    result, prompts = ask(None, "in.parquet", column="text")
    assert (result.kind, prompts, result.blank_rows) == ("Parquet, prompts in column 'text'", ["hi"], 1)
    assert errors()["row-2"].startswith("row 2: the cell is empty")
    with pytest.raises(ConfigurationError, match="row 1 of .* the prompt must be a text, got a number"):
        ask(None, "in.parquet", column="n")
    with pytest.raises(ConfigurationError, match="has the columns n, text, at"):
        ask(None, "in.parquet")


@pytest.mark.parametrize("column", ["messages", "prompt"])
def test_messages_in_a_parquet_file_are_chats(ask, chatpool_server, tmp_path, column):
    talk = [{"role": "user", "content": "hi", "name": None}, {"role": "assistant", "content": "ho", "name": "a"}]
    parquet(tmp_path / "in.parquet", [{"custom_id": "a", column: talk}, {"custom_id": "b", column: talk[:1]}])
    result, _ = ask(None, "in.parquet")
    assert result.succeeded == 2
    assert chatpool_server.requests[0].body["messages"] == [{"role": "user", "content": "hi"}, talk[1]]


def test_the_index_of_pandas_is_no_column(ask, tmp_path):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"text": ["hi"]}, index=["x"]).to_parquet(tmp_path / "in.parquet")
    assert ask(None, "in.parquet")[1] == ["hi"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("in.xlsx", "an Excel workbook that cannot be read"), ("in.parquet", "a Parquet file that cannot")],
)
def test_a_damaged_table_is_said(ask, name, words):
    content = zipped("xl/workbook.xml") if name == "in.xlsx" else b"PAR1" + bytes(range(256)) + b"PAR1"
    with pytest.raises(ConfigurationError, match=words):
        ask(content, name)


@pytest.mark.parametrize("name", ["in.xlsx", "in.parquet"])
def test_without_the_extra_the_error_names_it(ask, tmp_path, monkeypatch, name):
    if name == "in.xlsx":
        workbook(tmp_path / name, [["prompt"], ["hi"]])
    else:
        parquet(tmp_path / name, [{"prompt": "hi"}])
    for module in ("openpyxl", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=r"is an? .*: to read it, pip install 'chatpool\[tables\]'"):
        ask(None, name)


@pytest.mark.parametrize("name", ["in.xlsx", "in.xls", "in.parquet"])
def test_a_text_that_is_called_a_table_is_told_so(ask, name):
    with pytest.raises(ConfigurationError, match="whatever its name says"):
        ask("prompt\nhi\n", name)


@pytest.mark.parametrize("packed", [True, False])
def test_a_table_that_cannot_be_sought_in_is_refused(ask, tmp_path, monkeypatch, packed):
    parquet(tmp_path / "table", [{"prompt": "hi"}])
    data = (tmp_path / "table").read_bytes()
    if packed:
        (tmp_path / "in.gz").write_bytes(gzip.compress(data))
    else:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
    with pytest.raises(ConfigurationError, match="write it to a file, not compressed"):
        chatpool.batch.run(tmp_path / "in.gz" if packed else "-", tmp_path / "out.jsonl", base_url="http://x/v1")


def test_only_its_package_is_asked_for(ask, tmp_path, monkeypatch):
    real, asked = builtins.__import__, []

    def note(name, *args, **options):
        asked.append(name.split(".")[0])
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", note)
    ask("prompt\nhi\n")
    assert not {"openpyxl", "pyarrow", "pandas"} & set(asked)


def test_a_run_that_ends_early_closes_its_input(ask, chatpool_server, monkeypatch):
    readings, read = [], Source._input_lines

    def kept(source):  # as on a Python on which a generator outlives its last reference
        readings.append((source, read(source)))
        return readings[-1][1]

    monkeypatch.setattr(Source, "_input_lines", kept)
    chatpool_server.set_script(lambda request: Error(401))
    result, prompts = ask("".join(f"row {number}\n" for number in range(300)), "in.txt")
    assert result.fatal is not None
    assert len(prompts) < 300
    left_early = [(source, reading) for source, reading in readings if reading.gi_frame is not None]
    assert left_early
    for source, reading in left_early:
        assert all(file.closed for file in source._being_read)
        reading.close()
    assert all(source._being_read == [] for source, _ in left_early)  # of one source, several may be left
