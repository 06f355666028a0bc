"""Input files of the Batch API: what goes into each, and what is refused before anything is uploaded."""

from __future__ import annotations

import json

import pytest
from batch_api_rows import batch_rows_at
from batch_rows import batch_line

from chatpool import ConfigurationError
from chatpool.batch import submission_plan
from chatpool.testing import BatchScenario

HELD = BatchScenario(polls=None)


def sizes(status):
    return [each.rows for each in status.batches]


@pytest.fixture
def held_api(api_with):
    """An API whose batches stay as they are."""
    return api_with(batches=HELD)


def write(folder, *lines):
    path = folder / "in.jsonl"
    path.write_text("".join(lines))
    return path


# -- how rows are shared out ---------------------------------------------------------------------------------------


def test_files_are_full_at_their_number_of_rows(held_api, write_rows):
    assert sizes(held_api.submit(write_rows(7), rows_per_batch=3)) == [3, 3, 1]
    assert batch_rows_at(held_api.server) == [f"row {number}" for number in range(7)]


def test_files_are_full_at_their_size(held_api, write_rows, monkeypatch):
    monkeypatch.setattr(submission_plan.InputLimits, "__new__", limits_of_size(500))
    status = held_api.submit(write_rows(7))
    files = [len(file.content) for file in held_api.server.files]
    assert len(files) == len(status.batches) > 2
    assert max(files) <= 500


def limits_of_size(size, new=submission_plan.InputLimits.__new__):
    return lambda cls, rows=50_000, tokens=None: new(cls, rows, tokens, size)


def test_files_are_full_at_their_tokens(held_api, tmp_path):
    lines = [batch_line(f"{number}", "word " * 100) for number in range(6)]
    assert sizes(held_api.submit(write(tmp_path, *lines), tokens_per_batch=300)) == [2, 2, 2]


def test_each_model_and_endpoint_has_batches_of_its_own(held_api, tmp_path):
    def line(name, url, model):
        body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
        if url != "/v1/chat/completions":
            body = {"model": model, "input": "x"}
        return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body}) + "\n"

    kinds = [("/v1/chat/completions", "a"), ("/v1/chat/completions", "b"), ("/v1/responses", "a")]
    lines = [line(f"{round_}{place}", *kind) for round_ in "xy" for place, kind in enumerate(kinds)]
    status = held_api.submit(write(tmp_path, *lines))
    assert [(each.url, each.model, each.rows) for each in status.batches] == [(*kind, 2) for kind in kinds]
    assert batch_rows_at(held_api.server) == ["x0", "y0", "x1", "y1", "x2", "y2"]
    held_api.server.advance()
    assert {each["status"] for each in held_api.server.batches} == {"in_progress"}  # they are valid


def test_texts_to_embed_count_as_rows(held_api, tmp_path):
    lines = [json.dumps({"model": "m-embed", "input": ["x"] * count}) + "\n" for count in (2, 1, 2)]
    lines.append(json.dumps({"model": "m-embed", "input": [1, 2, 3]}) + "\n")  # the tokens of one text
    assert sizes(held_api.submit(write(tmp_path, *lines), rows_per_batch=3)) == [2, 2]


def test_names_with_any_character_come_back(api_with, tmp_path, ids):
    names = ['"body": {', 'é\u2028"', "\\", "row-2"]
    api = api_with()
    result = api.answer(write(tmp_path, *(batch_line(name, "x") for name in names)))
    assert (result.succeeded, ids(api.output)) == (4, names)


def test_metadata_of_rows_comes_along(api_with, tmp_path, read_lines):
    line = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], "metadata": {"page": 7}}) + "\n"
    api = api_with()
    api.answer(write(tmp_path, line))
    assert read_lines(api.output)[0]["metadata"] == {"page": 7}


def test_the_batch_has_the_metadata_of_the_user_and_ours(held_api, write_rows):
    held_api.submit(write_rows(1), metadata={"team": "search"})
    metadata = held_api.server.batches[0]["metadata"]
    assert metadata.pop("chatpool_submission")
    assert metadata == {"team": "search", "chatpool_part": "1", "chatpool_try": "1"}


def test_attached_files_are_in_the_input_file_and_known_by_their_content(api_with, tmp_path):
    (tmp_path / "pictures").mkdir()
    picture = tmp_path / "pictures" / "a.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"pixels")
    source = tmp_path / "in.csv"
    source.write_text("file\na.png\n")
    options = {"template": "Describe it.", "attach": ["file"], "attach_folder": tmp_path / "pictures"}
    api = api_with()
    assert api.answer(source, **options).succeeded == 1
    (line,) = map(json.loads, api.server.files[0].content.splitlines())
    parts = line["body"]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url"]
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0K")
    assert api.run(source, **options).done_before == 1


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([batch_line("a", "x", stream=True)], "line 1 cannot be put into a batch: this call does not stream"),
        ([batch_line("a", "x"), batch_line("a", "y")], "the custom_id 'a' was there before"),
        ([batch_line("a", "x", model=7)], "line 1 names no model"),
        ([batch_line("a", "x").replace("/v1/chat/completions", "/v1/audio/speech")], "line 1 goes to /audio/speech"),
        ([batch_line("a", "word " * 1000)], "line 1 has 1,.* tokens, by estimate, and a batch takes 500"),
        (["no json\n"], "line 1 of .* cannot be used"),
    ],
)
def test_nothing_is_uploaded_if_one_row_cannot_be(lines, message, held_api, tmp_path):
    source = write(tmp_path, batch_line("first", "x"), *lines)
    with pytest.raises(ConfigurationError, match=message.replace("line 1", "line [12]")):
        held_api.submit(source, tokens_per_batch=500)
    assert held_api.server.requests == []
    assert [each.name for each in tmp_path.iterdir()] == ["in.jsonl"]


def test_an_input_without_rows_has_no_batches(held_api, tmp_path):
    assert held_api.submit(write(tmp_path)).batches == ()
    assert held_api.server.requests == []
    assert [each.name for each in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_row_above_the_size_of_a_file_is_refused(held_api, write_rows, monkeypatch):
    monkeypatch.setattr(submission_plan.InputLimits, "__new__", limits_of_size(50))
    with pytest.raises(ConfigurationError, match=r"line 1 has \d+ bytes, and a batch takes 50: leave it out"):
        held_api.submit(write_rows(1))


def test_too_many_models_are_refused(held_api, tmp_path):
    with pytest.raises(ConfigurationError, match="more than 100 different models"):
        held_api.submit(write(tmp_path, *(batch_line(f"{number}", "x", model=f"m{number}") for number in range(101))))
    assert held_api.server.requests == []


def test_an_empty_cell_fails_alone_as_in_a_run(api_with, tmp_path, read_lines):
    source = tmp_path / "in.csv"
    source.write_text("id,prompt\na,x\nb,\nc,y\n")
    api = api_with()
    result = api.answer(source, id_field="id")
    assert (result.succeeded, result.failed) == (2, 1)
    assert batch_rows_at(api.server) == ["a", "c"]
    (error,) = read_lines(api.folder / "out.errors.jsonl")
    assert (error["custom_id"], error["error"]["code"]) == ("b", "invalid_request")


def test_bad_lines_may_be_left_out(api_with, tmp_path):
    api = api_with()
    result = api.answer(write(tmp_path, batch_line("a", "x"), "no json\n"), skip_bad_lines=True)
    assert (result.rows, result.succeeded) == (1, 1)


def test_what_a_killed_process_has_left_is_removed(held_api, write_rows, tmp_path):
    folder = tmp_path / "out.batches"
    folder.mkdir()
    (folder / "chatpool-0123-0001.jsonl").write_text("{}")
    held_api.submit(write_rows(1))
    assert not (folder / "chatpool-0123-0001.jsonl").exists()


def test_a_journal_of_something_else_is_refused(held_api, write_rows, tmp_path):
    folder = tmp_path / "out.batches"
    folder.mkdir()
    for content in ("{}\n", "\n", '{"event": "plan", "version": 2}\n'):
        (folder / "journal").write_text(content)
        with pytest.raises(ConfigurationError, match="journal cannot be read .*another version"):
            held_api.submit(write_rows(1))
    assert held_api.server.requests == []


def test_a_last_line_that_was_cut_short_is_as_if_it_had_not_been_written(api_with, write_rows, tmp_path):
    source = write_rows(2)
    api = api_with()
    api.submit(source)
    journal = tmp_path / "out.batches" / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])  # that the batch is there
    assert api.answer(source).succeeded == 2
    assert len(api.server.batches) == 1
