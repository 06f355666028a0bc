"""Plan of shards: an input cut into files of a few thousand rows each, and the manifest that describes them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from .._files import atomic_replace
from .._journal import DigestTable, FolderLease, key_of
from ..config import positive_int
from ..errors import ConfigurationError
from ..types import ChatRequest
from .input_files import Source
from .input_format import InputFormat, Row, names_sounds
from .job import BatchResult, Job
from .output_formats import STDOUT
from .rows import Rows
from .shard_files import copier_of

__all__ = ["ANSWERS", "INPUT_OPTIONS", "SHARDS", "Folder", "Plan", "Shard", "fingerprint", "load", "split"]

Folder = Union[str, os.PathLike[str]]

_VERSION = 1
SHARDS, ANSWERS, _MANIFEST = "shards", "answers", "manifest.json"
_UNFINISHED = ".splitting"  # has the folder of shards before that has its name
_HASHED_BYTES = 1 << 20  # at a time

INPUT_OPTIONS = (
    *("url", "template", "column", "id_field", "attach", "attach_folder", "delimiter", "encoding"),
    "skip_bad_lines",
)


@dataclass(frozen=True)
class Shard:
    """One part of the input.

    Attributes:
        index: its number, from 0.
        path: the file of its rows.
        answers: the folder of its answers, with a number at the front of their names: the greatest counts.
        rows: how many rows it has.
        rows_before: how many come before them in the whole input.
        size: bytes of its file.
        sha256: SHA-256 of its file, in hexadecimal.
    """

    index: int
    path: str
    answers: str
    rows: int
    rows_before: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Plan:
    """An input that :func:`split` has cut into shards.

    Attributes:
        folder: the folder of the plan, as an absolute path.
        source: the input, as it was named, absolute.
        size: bytes of the input.
        sha256: SHA-256 of the input, in hexadecimal.
        rows_per_shard: rows of each shard, the last one aside.
        options: how the input is read: the arguments of :func:`split`.
        delimiter: the character between the columns of CSV, None of other formats.
        shards: the shards, in the order of the input.
    """

    folder: str
    source: str
    size: int
    sha256: str
    rows_per_shard: int
    options: Mapping[str, Any]
    delimiter: Optional[str]
    shards: Tuple[Shard, ...]

    @property
    def manifest(self) -> str:
        """The file that describes the plan."""
        return os.path.join(self.folder, SHARDS, _MANIFEST)

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)


# -- split ------------------------------------------------------------------------------------------------


def split(
    source: Folder,
    folder: Folder,
    *,
    rows: int = 5000,
    url: Optional[str] = None,
    template: Optional[str] = None,
    column: Optional[str] = None,
    id_field: Optional[str] = None,
    attach: Union[str, Sequence[str], None] = None,
    attach_folder: Optional[Folder] = None,
    delimiter: Optional[str] = None,
    encoding: Optional[str] = None,
    skip_bad_lines: bool = False,
) -> Plan:
    """Cut an input into shards and return the plan.  The same call again returns the same plan.

    Every row is checked here, before any is sent: a shard that cannot be used would be found late.  All shards are
    there, or none: a call that is interrupted leaves no plan.

    Args:
        source: an input of :func:`chatpool.batch.run`, but no workbook: JSON lines, CSV or plain text, compressed by
            gzip or not, or Parquet.  Shards have its format, and are compressed if it is: each one of CSV has the
            heading, each one of Parquet all columns with their types.
        folder: the folder of the plan; it is made if it is not there.
        rows: rows of a shard. Default: 5,000.
        url, template, column, id_field, delimiter, encoding, skip_bad_lines: as in :func:`chatpool.batch.run`; they
            hold for every shard.
        attach, attach_folder: the same; the folder is that of the whole input, as an absolute path, and has to be there
            wherever a shard runs.

    Raises:
        ConfigurationError: a row cannot be used, two rows have one custom_id, or the folder has the shards of another
            input, of one that has changed since, or of other arguments.
        JournalBusyError: another process is splitting into this folder.
        OSError: a shard could not be written.
    """
    positive_int("rows", rows)
    if os.fspath(source) == STDOUT:
        raise ConfigurationError("standard input cannot be split: write it to a file and name that")
    source, folder = os.path.abspath(source), os.path.abspath(folder)
    attach = [attach] if isinstance(attach, str) else list(attach or ())
    names_files = bool(attach) or names_sounds(url)
    if names_files:
        attach_folder = os.path.abspath(os.path.dirname(source) if attach_folder is None else attach_folder)
    files = (attach or None, attach_folder if names_files else None)
    values = (url, template, column, id_field, *files, delimiter, encoding, skip_bad_lines or None)
    options = {name: value for name, value in zip(INPUT_OPTIONS, values) if value is not None}
    try:
        os.makedirs(folder, exist_ok=True)
        size, sha256, is_gzip = fingerprint(source)
        facts = {"source": source, "size": size, "sha256": sha256, "rows_per_shard": rows, "options": options}
        if not os.path.exists(os.path.join(folder, SHARDS)):
            with FolderLease(os.path.join(folder, _UNFINISHED)) as lease:
                _make_shards(folder, lease, facts, is_gzip)
        plan = load(folder)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, FileExistsError) as error:
        raise ConfigurationError(f"cannot split {source} into {folder}: {error}") from error
    _refuse_other(plan, facts)
    return plan


def fingerprint(path: str) -> Tuple[int, str, bool]:
    """Return the size of a file, its SHA-256, and whether it is compressed by gzip."""
    digest, size, head = hashlib.sha256(), 0, b""
    with open(path, "rb", buffering=0) as file:
        for data in iter(functools.partial(file.read, _HASHED_BYTES), b""):
            digest.update(data)
            size += len(data)
            head = head or data[:2]
    return size, digest.hexdigest(), head == b"\x1f\x8b"


def _make_shards(folder: str, lease: FolderLease, facts: Mapping[str, Any], is_gzip: bool) -> None:
    """Write the shards and the manifest into a folder that gets its name when it is whole."""
    done = os.path.join(folder, SHARDS)
    if os.path.exists(done):
        return
    for name in os.listdir(lease.folder):
        if name.endswith(SHARDS):  # of a process that was killed
            shutil.rmtree(os.path.join(lease.folder, name), ignore_errors=True)
    unfinished = lease.path(f".{SHARDS}")
    os.mkdir(unfinished)
    try:
        splitter = _Splitter(facts, unfinished, is_gzip)
        splitter.write()
        if fingerprint(facts["source"])[1] != facts["sha256"]:
            raise ConfigurationError(f"{facts['source']} was written to while it was split: wait until it is whole")
        with atomic_replace(os.path.join(unfinished, _MANIFEST)) as file:
            file.write(json.dumps({"version": _VERSION, **facts, **splitter.facts()}, indent=1).encode("ascii"))
        try:
            os.rename(unfinished, done)
        except OSError:
            if not os.path.exists(done):  # otherwise a process that was thought to be lost has made the same ones
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


class _Splitter:
    """Copies the rows of an input to shards, and checks them.

    Args:
        facts: those of the manifest.
        folder: takes the shards.
        is_gzip: whether they are compressed.
    """

    def __init__(self, facts: Mapping[str, Any], folder: str, is_gzip: bool) -> None:
        options = dict(facts["options"])
        skips_bad_lines = options.pop("skip_bad_lines", False)
        text = {name: options.pop(name, None) for name in ("delimiter", "encoding")}
        self._source = Source(facts["source"], options.get("column"), **text)
        job = Job(skip_bad_lines=skips_bad_lines)
        self._rows = Rows(self._source, InputFormat(self._source, **options), job, ChatRequest, BatchResult())
        self._copier = copier_of(self._source, is_gzip=is_gzip)
        self._rows_per_shard: int = facts["rows_per_shard"]
        self._folder = folder
        self._places = DigestTable()  # the line of each custom_id
        self._shards: List[Dict[str, Any]] = []

    def facts(self) -> Dict[str, Any]:
        """Return what the manifest says of the shards."""
        delimiter = self._source.delimiter or None
        return {"suffix": self._copier.suffix, "delimiter": delimiter, "shards": self._shards}

    def write(self) -> None:
        """Write all shards.

        Raises:
            ConfigurationError: a row cannot be used, or there is none.
        """
        with contextlib.closing(self._copier), contextlib.ExitStack() as files:
            for row in self._rows.read(None, reports=True):
                self._refuse_duplicate(row)
                if not self._shards or self._shards[-1]["rows"] == self._rows_per_shard:
                    files.close()
                    files.enter_context(self._next_shard(row))
                self._copier.copy(row.line.end)
                self._shards[-1]["rows"] += 1
        if self._rows.input_error is not None:
            raise self._rows.input_error
        if not self._shards:
            raise ConfigurationError(f"{self._source.name} has no rows: choose another input")

    def _refuse_duplicate(self, row: Row) -> None:
        place = self._places.update(key_of(row.custom_id), 0, row.line.place)
        if place:
            raise ConfigurationError(
                f"{self._rows.location_of(row)} of {self._source.name}: the custom_id {row.custom_id!r} was there "
                f"before, in {self._source.unit} {place}; each row needs its own"
            )

    @contextlib.contextmanager
    def _next_shard(self, row: Row) -> Iterator[None]:
        """Within the block, rows go to a new shard; its file is on the disk, and its facts known, when the block ends.

        Args:
            row: the first one of it.
        """
        before = row.number - 1 - bool(self._source.heading.end)  # the heading has the first number
        path = os.path.join(self._folder, _name(len(self._shards), self._copier.suffix))
        shard: Dict[str, Any] = {"rows": 0, "rows_before": before}
        self._shards.append(shard)
        with open(path, "wb") as file:
            with self._copier.into(file, row.line.place):
                yield
            file.flush()
            os.fsync(file.fileno())
        shard["size"], shard["sha256"], _ = fingerprint(path)


def _name(index: int, suffix: str) -> str:
    return f"{index:05d}{suffix}"


def _refuse_other(plan: Plan, facts: Mapping[str, Any]) -> None:
    """Refuse a plan that is not the one that :func:`split` was asked for."""
    if (plan.size, plan.sha256) != (facts["size"], facts["sha256"]):
        changed = "it has changed since" if plan.source == facts["source"] else f"those are of {plan.source}"
        raise ConfigurationError(
            f"{plan.folder} has shards, but not of {facts['source']} as it is: {changed}; choose another folder"
        )
    wanted = {"rows": facts["rows_per_shard"], **facts["options"]}
    made = {"rows": plan.rows_per_shard, **plan.options}
    if wanted != made:
        names = sorted(name for name in {*wanted, *made} if wanted.get(name) != made.get(name))
        told = ", ".join(f"{name}={made.get(name)!r}, not {wanted.get(name)!r}" for name in names)
        raise ConfigurationError(f"{plan.folder} was split with {told}: pass the same, or choose another folder")


def load(folder: Folder) -> Plan:
    """Return the plan in a folder.

    Raises:
        ConfigurationError: there is none, or one of a later version.
    """
    folder = os.path.abspath(folder)
    path = os.path.join(folder, SHARDS, _MANIFEST)
    try:
        with open(path, "rb") as file:
            facts = json.loads(file.read())
        if facts["version"] != _VERSION:
            raise ConfigurationError(f"{path} is of another version of chatpool: split into another folder")
        shards = tuple(
            _shard(folder, index, str(facts["suffix"]), shard) for index, shard in enumerate(facts["shards"])
        )
        options = {name: facts["options"][name] for name in INPUT_OPTIONS if name in facts["options"]}
        named = (facts["source"], facts["size"], facts["sha256"], facts["rows_per_shard"])
        return Plan(folder, *named, options, facts["delimiter"], shards)
    except FileNotFoundError:
        raise ConfigurationError(f"{folder} is no folder of shards: {path} is not there; make it with split") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _shard(folder: str, index: int, suffix: str, facts: Mapping[str, Any]) -> Shard:
    path = os.path.join(folder, SHARDS, _name(index, os.path.basename(suffix)))
    answers = os.path.join(folder, ANSWERS, _name(index, ""))
    rows, rows_before, size = (int(facts[name]) for name in ("rows", "rows_before", "size"))
    return Shard(index, path, answers, rows, rows_before, size, str(facts["sha256"]))
