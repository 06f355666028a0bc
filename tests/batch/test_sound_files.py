"""Runs over sounds: files to texts, and texts to files."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections import Counter

import pytest

import chatpool
from chatpool import ConfigurationError
from chatpool.batch import run, shards, submit
from chatpool.testing import Error, Stall

TEXTS = {"transcriptions": "/v1/audio/transcriptions", "translations": "/v1/audio/translations"}


@pytest.fixture
def folder(tmp_path):
    """A folder ``talks`` with four sounds, and with what is none."""
    folder = tmp_path / "talks"
    folder.mkdir()
    for name in ("b.mp3", "a.M4A", "c.webm", "d.opus"):
        (folder / name).write_text(f"said in {name}")
    (folder / ".hidden.mp3").write_text("hidden")
    (folder / "notes.txt").write_text("no sound")
    (folder / "below").mkdir()
    (folder / "below" / "e.mp3").write_text("below")
    (folder / "folder.mp3").mkdir()
    return folder


@pytest.fixture
def listed(folder, tmp_path):
    """``listed(text, name="in.csv")`` writes an input beside the folder."""

    def write(text, name="in.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def texts(read_lines):
    """The texts in a file of answers, by the names of their rows."""
    return lambda path: {line["custom_id"]: line["response"]["body"]["text"] for line in read_lines(path)}


def heard(server):
    """What was sent: the contents of the files, in any order."""
    return sorted(request.files[0].content.decode() for request in server.requests)


class TestFolder:
    @pytest.mark.parametrize("url", [*TEXTS, *TEXTS.values(), "audio/transcriptions"])
    def test_its_sounds_are_rows_that_have_their_names(self, pool, chatpool_server, folder, tmp_path, texts, url):
        result = run(folder, tmp_path / "out.jsonl", pool=pool, url=url, in_order=True)
        assert result.kind == "folder of sounds"
        names = ["a.M4A", "b.mp3", "c.webm", "d.opus"]
        assert list(texts(tmp_path / "out.jsonl").items()) == [(name, f"said in {name}") for name in names]
        assert {request.path for request in chatpool_server.requests} == {TEXTS[url.rpartition("/")[2]]}
        assert {request.files[0].filename for request in chatpool_server.requests} == set(names)

    def test_one_without_sounds_is_refused(self, pool, folder, tmp_path):
        with pytest.raises(ConfigurationError, match="no sound in the folder .*endings"):
            run(tmp_path, tmp_path / "out.jsonl", pool=pool, url="transcriptions")

    @pytest.mark.parametrize("url", [None, "embeddings", "speech"])
    def test_one_for_another_endpoint_is_refused(self, pool, folder, tmp_path, url):
        save_to = tmp_path / "sounds" if url == "speech" else None
        with pytest.raises(ConfigurationError, match="is a folder: .*--endpoint transcriptions"):
            run(folder, tmp_path / "out.jsonl", pool=pool, url=url, save_to=save_to)
        assert not (tmp_path / "out.jsonl").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"encoding": "cp1252"}, "encoding is for text"),
            ({"delimiter": ";"}, "delimiter is for"),
            ({"template": "{file}"}, "template has no place"),
            ({"attach": "file"}, "attach has no place"),
        ],
    )
    def test_options_for_other_inputs_are_refused(self, pool, folder, tmp_path, options, message):
        with pytest.raises(ConfigurationError, match=message):
            run(folder, tmp_path / "out.jsonl", pool=pool, url="transcriptions", **options)

    def test_an_output_that_would_be_one_of_them_is_refused(self, pool, chatpool_server, folder):
        with pytest.raises(ConfigurationError, match="would be one of the sounds"):
            run(folder, folder / "out.mp3", pool=pool, url="transcriptions", format="batch")
        assert run(folder, folder / "out.jsonl", pool=pool, url="transcriptions").rows == 4
        assert run(folder, folder / "out.jsonl", pool=pool, url="transcriptions").rows == 4

    def test_batches_and_shards_take_none(self, pool, folder, tmp_path):
        with pytest.raises(ConfigurationError, match="input must be a file"):
            submit(folder, tmp_path / "out.jsonl", pool=pool, url="transcriptions")
        with pytest.raises(ConfigurationError, match="cannot split .* directory"):
            shards.split(folder, tmp_path / "plan", url="transcriptions")


class TestRows:
    @pytest.mark.parametrize(
        ("name", "text", "options"),
        [
            ("in.txt", "talks/b.mp3\n\ntalks/c.webm\n", {}),
            ("in.csv", "file,who\ntalks/b.mp3,B\ntalks/c.webm,C\n", {}),
            ("in.csv", "path\ntalks/b.mp3\ntalks/c.webm\n", {}),
            ("in.csv", "who;sound\nB;talks/b.mp3\nC;talks/c.webm\n", {"column": "sound"}),
            ("in.jsonl", '{"file": "talks/b.mp3"}\n{"file": "talks/c.webm", "prompt": ""}\n', {}),
            ("in.csv", "file\nb.mp3\nc.webm\n", {"attach_folder": "talks"}),
        ],
    )
    def test_they_name_files_below_the_folder_of_the_input(
        self, pool, chatpool_server, listed, tmp_path, name, text, options
    ):
        if "attach_folder" in options:
            options = {"attach_folder": tmp_path / "talks"}
        result = run(listed(text, name), tmp_path / "out.jsonl", pool=pool, url="transcriptions", **options)
        assert result.succeeded == 2
        assert heard(chatpool_server) == ["said in b.mp3", "said in c.webm"]

    def test_those_of_parquet(self, pool, chatpool_server, folder, tmp_path):
        parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
        rows = arrow.table({"file": ["talks/b.mp3"], "language": ["de"], "when": [None]})
        parquet.write_table(rows, tmp_path / "in.parquet")
        assert run(tmp_path / "in.parquet", tmp_path / "out.csv", pool=pool, url="transcriptions").succeeded == 1
        assert chatpool_server.requests[0].form["language"] == "de"

    def test_those_of_standard_input_are_below_the_current_one(
        self, pool, chatpool_server, folder, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"b.mp3\nc.webm\n")))
        assert run("-", tmp_path / "out.txt", pool=pool, url="transcriptions").succeeded == 2
        assert (tmp_path / "out.txt").read_text().splitlines() == ["said in b.mp3", "said in c.webm"]

    def test_fields_of_the_api_go_into_the_form(self, pool, chatpool_server, listed, tmp_path):
        text = (
            "file,language,who,prompt,timestamp_granularities,response_format\n"
            'talks/b.mp3,de,Zoe,names,"word, segment",verbose_json\n'
            "talks/c.webm,,Max,,,\n"
        )
        run(listed(text), tmp_path / "out.jsonl", pool=pool, url="transcriptions", temperature=0.5, in_order=True)
        forms = sorted((request.form for request in chatpool_server.requests), key=len)
        assert forms[0] == {"model": "m", "temperature": "0.5", "response_format": "json"}
        assert forms[1] == {
            "model": "m",
            "prompt": "names",
            "language": "de",
            "temperature": "0.5",
            "response_format": "verbose_json",
            "timestamp_granularities[]": ["word", "segment"],
        }
        body = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["response"]["body"]
        assert [word["word"] for word in body["words"]] == ["said", "in", "b.mp3"]

    def test_those_of_the_pool_stand_where_a_row_has_none(self, chatpool_server, listed, tmp_path):
        source = listed("file,language\ntalks/b.mp3,\ntalks/c.webm,de\n")
        options = {"base_url": chatpool_server.base_url, "defaults": {"language": "fr", "response_format": "srt"}}
        run(source, tmp_path / "out.csv", url="transcriptions", model="whisper", max_workers=1, **options)
        assert [request.form["language"] for request in chatpool_server.requests] == ["fr", "de"]
        assert {request.form["model"] for request in chatpool_server.requests} == {"whisper"}
        assert "00:00:00,000 --> 00:00:01,500\nsaid in b.mp3" in (tmp_path / "out.csv").read_text()

    def test_tables_have_the_text(self, pool, folder, tmp_path):
        run(folder, tmp_path / "out.csv", pool=pool, url="transcriptions")
        assert (tmp_path / "out.csv").read_text().splitlines()[:2] == [
            "file,answer,error,tokens",
            "a.M4A,said in a.M4A,,",
        ]

    def test_a_dry_run_sends_nothing(self, pool, chatpool_server, folder, tmp_path):
        assert run(folder, tmp_path / "out.csv", pool=pool, url="transcriptions", dry_run=True).pending == 4
        assert not chatpool_server.requests


class TestFaults:
    def test_a_file_that_cannot_be_read_fails_its_row_only(self, pool, chatpool_server, listed, tmp_path, read_lines):
        source = listed("file,who\ntalks/b.mp3,A\ntalks/none.mp3,B\ntalks/below,C\n,D\ntalks/c.webm,E\n")
        result = run(source, tmp_path / "out.jsonl", pool=pool, url="transcriptions")
        assert (result.succeeded, result.failed, result.fatal) == (2, 3, None)
        messages = {line["custom_id"]: line["error"]["message"] for line in read_lines(tmp_path / "out.errors.jsonl")}
        assert f"cannot read {tmp_path / 'talks' / 'none.mp3'}: No such file" in messages["row-3"]
        assert "talks/below: it is a folder" in messages["row-4"]
        assert "there is nothing in 'file'" in messages["row-5"]
        assert len(chatpool_server.requests) == 2

    @pytest.mark.parametrize(
        ("text", "name", "message"),
        [
            ("path,who\na,b\n", "in.csv", "no column 'file'; it has path, who: name the one"),
            ('{"path": "a"}\n', "in.jsonl", "no field 'file' with the path of a sound .there are: path"),
            ('{"file": 7}\n', "in.jsonl", "'file' must be the path of a sound"),
            ("[7]\n", "in.jsonl", "JSON array|must be a JSON object"),
        ],
    )
    def test_a_mistake_is_named_before_anything_is_sent(
        self, pool, chatpool_server, listed, tmp_path, text, name, message
    ):
        with pytest.raises(ConfigurationError, match=message):
            run(listed(text, name), tmp_path / "out.jsonl", pool=pool, url="transcriptions")
        assert not chatpool_server.requests

    def test_the_batch_api_takes_none(self, pool, listed, tmp_path):
        with pytest.raises(ConfigurationError, match="goes to .*/audio/transcriptions, and batches are for"):
            submit(listed("file\ntalks/b.mp3\n"), tmp_path / "out.jsonl", pool=pool, url="transcriptions")


class TestGoingOn:
    def test_only_a_file_that_has_changed_is_sent_again(self, pool, chatpool_server, folder, tmp_path, texts):
        target = tmp_path / "out.jsonl"
        run(folder, target, pool=pool, url="transcriptions")
        assert run(folder, target, pool=pool, url="transcriptions").done_before == 4
        (folder / "b.mp3").write_text("said anew")
        os.utime(folder / "c.webm")
        assert run(folder, target, pool=pool, url="transcriptions").changed == 1
        assert len(chatpool_server.requests) == 5
        assert texts(target)["b.mp3"] == "said anew"

    def test_a_row_whose_file_has_come_runs(self, pool, chatpool_server, listed, tmp_path):
        source, target = listed("file\ntalks/b.mp3\ntalks/late.mp3\n"), tmp_path / "out.jsonl"
        assert run(source, target, pool=pool, url="transcriptions").failed == 1
        assert run(source, target, pool=pool, url="transcriptions").done_before == 2
        (tmp_path / "talks" / "late.mp3").write_text("late")
        assert run(source, target, pool=pool, url="transcriptions").succeeded == 2
        assert heard(chatpool_server) == ["late", "said in b.mp3"]

    def test_a_row_that_names_another_missing_file_is_tried_anew(self, pool, listed, tmp_path):
        for name in ("none.mp3", "other.mp3"):
            source = listed(f"file\ntalks/{name}\n")
            assert run(source, tmp_path / "out.jsonl", pool=pool, url="transcriptions").done_before == 0
        assert "other.mp3" in (tmp_path / "out.errors.jsonl").read_text()

    def test_what_failed_runs_again(self, pool, chatpool_server, folder, tmp_path):
        chatpool_server.enqueue(Error(400))
        assert run(folder, tmp_path / "out.jsonl", pool=pool, url="transcriptions").failed == 1
        result = run(folder, tmp_path / "out.jsonl", pool=pool, url="transcriptions", retry_failed=True)
        assert (result.rows, result.succeeded) == (1, 1)
        assert len(chatpool_server.requests) == 5

    @pytest.mark.slow
    def test_several_processes_read_them(self, chatpool_server, folder, tmp_path, texts):
        for number in range(12):
            (folder / f"{number}.mp3").write_text(f"talk {number}")
        with chatpool.ChatPool("m", base_url=chatpool_server.base_url, max_workers=4) as pool:
            result = run(folder, tmp_path / "out.jsonl", pool=pool, url="transcriptions", processes=2)
        assert result.succeeded == 16
        assert texts(tmp_path / "out.jsonl")["7.mp3"] == "talk 7"
        assert chatpool.batch.report(tmp_path / "out.journal").succeeded == 16

    def test_shards_find_them_in_the_folder_of_the_whole_input(
        self, pool, chatpool_server, listed, tmp_path, monkeypatch
    ):
        listed("talks/b.mp3\ntalks/c.webm\ntalks/d.opus\n", "in.txt")
        monkeypatch.chdir(tmp_path)
        plan = shards.split("in.txt", tmp_path / "plan", rows=2, url="transcriptions")
        monkeypatch.chdir(tmp_path / "talks")
        for index in range(2):
            assert shards.run(plan, index, pool=pool)["failed"] == 0
        assert heard(chatpool_server) == ["said in b.mp3", "said in c.webm", "said in d.opus"]

    @pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
    @pytest.mark.slow
    @pytest.mark.parametrize("processes", [1, 2])
    def test_a_run_that_is_killed_goes_on(self, start_run, chatpool_server, tmp_path, texts, processes):
        talks, target = tmp_path / "many", tmp_path / "out.jsonl"
        talks.mkdir()
        for number in range(200):  # more than one process is ever given
            (talks / f"{number}.mp3").write_text(f"talk {number}")
        chatpool_server.set_script(lambda request: Stall() if request.number >= 20 else None)
        options = ("--endpoint", "transcriptions", "--max-workers", 4, "--processes", processes)
        process = start_run(chatpool_server, talks, target, *options)
        chatpool_server.wait_for(24, timeout=60)  # all workers wait for answers: the others are kept
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        chatpool_server.wait_until(lambda: chatpool_server.in_flight == 0, timeout=60)
        chatpool_server.set_script([])
        process = start_run(chatpool_server, talks, target, *options)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert texts(target) == {f"{number}.mp3": f"talk {number}" for number in range(200)}
        sent = Counter(heard(chatpool_server))
        assert (len(sent), sum(sent.values())) == (200, 204)


class TestSpeech:
    def test_each_row_has_a_file_of_its_name(self, pool, chatpool_server, listed, tmp_path, read_lines):
        source = listed("custom_id,text\nfirst,One.\nsecond,Two.\n")
        sounds, target = tmp_path / "new" / "sounds", tmp_path / "out.jsonl"
        options = {"pool": pool, "url": "speech", "column": "text", "save_to": sounds, "in_order": True}
        assert run(source, target, **options, response_format="wav").succeeded == 2
        assert sorted(path.name for path in sounds.iterdir()) == ["first.wav", "second.wav"]
        body = read_lines(target)[0]["response"]["body"]
        assert body == {"file": str(sounds / "first.wav"), "bytes": (sounds / "first.wav").stat().st_size}
        assert b"One." in (sounds / "first.wav").read_bytes()
        sent = next(request.body for request in chatpool_server.requests if request.body["input"] == "One.")
        assert sent == {"model": "m", "voice": "alloy", "input": "One.", "response_format": "wav"}

    def test_those_of_the_pool_and_of_a_row(self, chatpool_server, listed, tmp_path):
        source = listed(
            '{"input": "One."}\n{"input": "Two.", "voice": "nova", "response_format": "flac"}\n', "in.jsonl"
        )
        options = {"base_url": chatpool_server.base_url, "defaults": {"voice": "ash", "speed": 2}, "max_workers": 1}
        run(source, tmp_path / "out.csv", url="speech", save_to=tmp_path / "s", model="tts", **options)
        assert [request.body["voice"] for request in chatpool_server.requests] == ["ash", "nova"]
        assert [request.body["speed"] for request in chatpool_server.requests] == [2, 2]
        lines = (tmp_path / "out.csv").read_text().splitlines()
        assert str(tmp_path / "s" / "row-1.mp3") in lines[1]
        assert str(tmp_path / "s" / "row-2.flac") in lines[2]

    def test_a_row_whose_file_is_gone_or_damaged_runs_again(self, pool, chatpool_server, listed, tmp_path):
        source, sounds, target = listed("One.\nTwo.\nThree.\n", "in.txt"), tmp_path / "s", tmp_path / "out.jsonl"
        run(source, target, pool=pool, url="speech", save_to=sounds)
        assert run(source, target, pool=pool, url="speech", save_to=sounds).done_before == 3
        (sounds / "row-1.mp3").unlink()
        (sounds / "row-2.mp3").write_text("")
        result = run(source, target, pool=pool, url="speech", save_to=sounds)
        assert (result.done_before, result.succeeded) == (1, 3)
        assert len(chatpool_server.requests) == 5
        assert all(path.stat().st_size > 4 for path in sounds.iterdir())

    def test_a_folder_that_was_moved_is_known(self, pool, chatpool_server, listed, tmp_path):
        source, target = listed("One.\nTwo.\n", "in.txt"), tmp_path / "out.jsonl"
        run(source, target, pool=pool, url="speech", save_to=tmp_path / "s")
        (tmp_path / "s").rename(tmp_path / "t")
        assert run(source, target, pool=pool, url="speech", save_to=tmp_path / "t").done_before == 2
        assert run(source, target, pool=pool, url="speech", save_to=tmp_path / "s").done_before == 0

    @pytest.mark.slow
    def test_several_processes_write_them(self, chatpool_server, listed, tmp_path):
        source = listed("".join(f"Text {number % 3}.\n" for number in range(12)), "in.txt")
        with chatpool.ChatPool("m", base_url=chatpool_server.base_url, max_workers=4) as pool:
            run(source, tmp_path / "out.jsonl", pool=pool, url="speech", save_to=tmp_path / "s", processes=2)
        heard = {path.name: path.read_bytes()[-7:] for path in (tmp_path / "s").iterdir()}
        assert heard == {f"row-{number + 1}.mp3": b"Text %d." % (number % 3) for number in range(12)}

    @pytest.mark.parametrize(
        "name", ["../up", "a/b", "a\\b", ".hidden", "..", " ", "nul\0", "x" * 400, "é" * 200, "con:"]
    )
    def test_a_name_that_can_be_no_file_gets_one(self, pool, listed, tmp_path, name):
        rows = [{"custom_id": name, "input": "One."}, {"custom_id": f"{name}?", "input": "Two."}]
        source = listed("".join(json.dumps(row) + "\n" for row in rows), "in.jsonl")
        run(source, tmp_path / "out.jsonl", pool=pool, url="speech", save_to=tmp_path / "s")
        names = sorted(os.listdir(tmp_path / "s"))
        assert len(names) == 2
        assert all(len(os.fsencode(name)) < 220 and not name.startswith(".") for name in names)
        assert sorted(os.listdir(tmp_path)) == [
            "in.jsonl",
            "out.errors.jsonl",
            "out.journal",
            "out.jsonl",
            "s",
            "talks",
        ]

    def test_two_rows_with_one_file_are_refused(self, pool, listed, tmp_path, read_lines):
        source = listed('{"custom_id": "A", "input": "1"}\n{"custom_id": "a", "input": "2"}\n', "in.jsonl")
        result = run(source, tmp_path / "out.jsonl", pool=pool, url="speech", save_to=tmp_path / "s")
        assert (result.succeeded, result.failed) == (1, 1)
        assert "'A' and 'a' would have one file, a.mp3" in (tmp_path / "out.errors.jsonl").read_text()
        assert run(source, tmp_path / "out.jsonl", pool=pool, url="speech", save_to=tmp_path / "s").done_before == 2
        assert os.listdir(tmp_path / "s") == ["A.mp3"]

    def test_a_format_that_is_a_path_is_refused(self, pool, chatpool_server, listed, tmp_path):
        source = listed('{"input": "1", "response_format": "/../../x"}\n', "in.jsonl")
        assert run(source, tmp_path / "out.jsonl", pool=pool, url="speech", save_to=tmp_path / "s").failed == 1
        assert not chatpool_server.requests

    @pytest.mark.parametrize(
        ("url", "save_to", "message"),
        [
            ("speech", None, "name the folder for them .save_to=, --save-to FOLDER"),
            ("embeddings", "s", "save_to .--save-to. is for the sounds"),
            ("transcriptions", "s", "save_to .--save-to. is for the sounds"),
            (None, "s", "save_to .--save-to. is for the sounds"),
            ("speech", "in.txt", "cannot make the folder .*in.txt: File exists"),
        ],
    )
    def test_a_folder_and_speech_need_each_other(self, pool, listed, tmp_path, monkeypatch, url, save_to, message):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigurationError, match=message):
            run(listed("One.\n", "in.txt"), tmp_path / "out.jsonl", pool=pool, url=url, save_to=save_to)
        assert not (tmp_path / "out.journal").exists()

    def test_a_dry_run_makes_no_folder(self, pool, listed, tmp_path):
        source = listed("One.\n", "in.txt")
        run(source, tmp_path / "out.jsonl", pool=pool, url="speech", save_to=tmp_path / "s", dry_run=True)
        assert not (tmp_path / "s").exists()
