"""The journal of a submission: what was uploaded and created at the Batch API, written before and after each step.

A submission is an input on its way through the Batch API, in one or more parts.  Its folder beside the output,
``OUT.batches``, has the journal, which is JSON lines; the input file of each part until its batch is created; and the
names of the rows.  :class:`Submission` writes the journal and is its sum at the same time: the state in memory is that
of the lines in the file, whether they were read or written.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from types import TracebackType
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Type

from .._files import atomic_replace
from .._journal import AppendOnly, FileLock
from ..clock import current_clock
from ..errors import ConfigurationError
from .jsonl import json_text
from .output_files import journal_beside
from .submission_part import PLANNED_FIELDS, Part

__all__ = [
    "Submission",
    "SubmissionPlan",
    "folder_of",
    "planned",
    "planned_options",
    "read_submission",
    "refuse_unfinished",
]

_JOURNAL, _ROWS = "journal", "rows"
_VERSION = 1
_KEY_BYTES, _HASH_BYTES = 8, 16


class SubmissionPlan(NamedTuple):
    """Facts of a submission that do not change.

    Attributes:
        name: a random name, by which files and batches of it are found again.
        at: when it was made, in seconds since the epoch.
        server: the base URL of the server.
        input: the path of the input.
        fingerprint: its size and SHA-256.
        input_options: how it is read.
        job_options: which rows were selected, and where answers go.
        request: model, system message and body fields of the requests; no key and no header.
        completion_window, metadata: as the user has given them.
    """

    name: str
    at: float
    server: str
    input: str
    fingerprint: Tuple[int, str]
    input_options: Mapping[str, Any]
    job_options: Mapping[str, Any]
    request: Mapping[str, Any]
    completion_window: str
    metadata: Mapping[str, str]

    @classmethod
    def new(cls, **facts: Any) -> SubmissionPlan:
        """Return a plan that is made now."""
        return cls(name=secrets.token_hex(8), at=current_clock().wall(), **facts)

    def same_as(self, other: SubmissionPlan) -> bool:
        """Return whether both are of the same call, whenever it was made."""
        return self._replace(name="", at=0.0) == other._replace(name="", at=0.0)


def folder_of(output: str) -> str:
    """Return the folder of the submission whose answers go to this output."""
    return f"{journal_beside(output).removesuffix('.journal')}.batches"


class Submission:
    """A submission by its journal.

    Args:
        folder: its folder.

    Attributes:
        folder: as it was given.
        plan: its plan, None before there is one.
        parts: its parts.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.plan: Optional[SubmissionPlan] = None
        self.parts: List[Part] = []
        self._file: Optional[AppendOnly] = None

    # -- questions ------------------------------------------------------------------------------------------

    @property
    def is_collected(self) -> bool:
        """True if no answer is to be had any more; True before there is a plan, too."""
        return all(part.is_collected for part in self.parts)

    @property
    def is_over(self) -> bool:
        """True if every batch has ended."""
        return all(part.is_over for part in self.parts)

    def headway(self, model: str) -> int:
        """Return a number that grows whenever the limit of enqueued tokens may have room for more of a model."""
        parts = [part for part in self.parts if part.model == model]
        return sum(part.was_accepted for part in parts) + sum(part.is_over for part in parts)

    def input_path(self, number: int, name: Optional[str] = None) -> str:
        """Return the path of the input file of a part; the server gets its name, by which it is found again.

        Args:
            number: the part's.
            name: the name of a plan that is not begun yet.
        """
        name = name or (self.plan.name if self.plan is not None else "")
        return os.path.join(self.folder, f"chatpool-{name}-{number:04d}.jsonl")

    def names_path(self, number: int) -> str:
        """Return the path of the file with the names of a part's rows."""
        return os.path.join(self.folder, f"{number:04d}.names")

    def answer_path(self, number: int, kind: str) -> str:
        """Return the path to which the answers or errors of a part are fetched."""
        return os.path.join(self.folder, f"{number:04d}.{kind}.jsonl")

    @property
    def rows_path(self) -> str:
        """The file with key and hash of every row of the input, in its order; see :meth:`row_keys`."""
        return os.path.join(self.folder, _ROWS)

    def row_keys(self) -> Iterator[Tuple[int, str]]:
        """Yield key and hash of every row of the input, in its order."""
        with open(self.rows_path, "rb", buffering=1 << 18) as file:
            while True:
                data = file.read(_KEY_BYTES + _HASH_BYTES)
                if len(data) < _KEY_BYTES + _HASH_BYTES:
                    return
                yield int.from_bytes(data[:_KEY_BYTES], "big"), data[_KEY_BYTES:].hex()

    # -- reading and writing --------------------------------------------------------------------------------

    @property
    def _journal_path(self) -> str:
        return os.path.join(self.folder, _JOURNAL)

    def read(self) -> int:
        """Read the journal; return how many bytes of it are whole lines.

        Raises:
            ConfigurationError: it is one of a later version, or of something else.
        """
        self.plan, self.parts, size = None, [], 0
        with contextlib.suppress(FileNotFoundError), open(self._journal_path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # the process died, or the machine, as it was written
                try:
                    self._apply(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise ConfigurationError(
                        f"{self._journal_path} cannot be read ({type(error).__name__} at byte {size}): it is of "
                        "another version of chatpool, or damaged"
                    ) from error
                size += len(line)
        return size

    def _apply(self, event: Mapping[str, Any]) -> None:
        if event["event"] != "plan":
            self._part(event["part"]).apply(event)
            return
        if event["version"] != _VERSION:
            raise ValueError("unknown version")
        facts = {name: event[name] for name in SubmissionPlan._fields}
        self.plan = SubmissionPlan(**{**facts, "fingerprint": tuple(event["fingerprint"])})
        self.parts = [Part(**{name: part[name] for name in PLANNED_FIELDS}) for part in event["parts"]]

    def _part(self, number: int) -> Part:
        return next(part for part in self.parts if part.number == number)

    def note(self, part: Part, event: str, **facts: Any) -> None:
        """Write an event of a part to the journal, and apply it; when this returns it survives the machine's death.

        Raises:
            OSError: it cannot be written.
        """
        self._append({"event": event, "part": part.number, "at": current_clock().wall(), **facts})

    def begin(self, plan: SubmissionPlan, parts: List[Part]) -> None:
        """Write a new plan to the journal: from now on these are its parts."""
        planned = [{name: getattr(part, name) for name in PLANNED_FIELDS} for part in parts]
        self._append({"event": "plan", "version": _VERSION, **plan._asdict(), "parts": planned})

    def _append(self, event: Mapping[str, Any]) -> None:
        assert self._file is not None
        line = json_text(event)
        self._file.append(line.encode("ascii") + b"\n")
        self._file.sync()
        self._apply(json.loads(line))

    @contextlib.contextmanager
    def new_rows(self) -> Iterator[Any]:
        """Lend a function that takes key and hash of each row, for :meth:`row_keys`."""
        with atomic_replace(self.rows_path) as file:
            yield lambda key, hash_: file.write(key.to_bytes(_KEY_BYTES, "big") + bytes.fromhex(hash_))

    def __enter__(self) -> Submission:
        """Lock the submission and read its journal; a last line that a crash has cut short is removed.

        Raises:
            JournalBusyError: another process has it.
            ConfigurationError: the folder cannot be made, or the journal cannot be read.
        """
        self._lock = FileLock(self._journal_path)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
            self._lock.acquire()
            with contextlib.suppress(FileExistsError):  # for nobody else to read: it has the user's system message
                os.close(os.open(self._journal_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            whole_bytes = self.read()
            self._file = AppendOnly(self._journal_path)
            self._file.truncate(whole_bytes)
        except OSError as error:
            self._lock.release()
            reason = error.strerror or str(error)
            raise ConfigurationError(f"cannot write {self.folder}: {reason}; choose another output") from error
        except ConfigurationError:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if self.plan is None:
                self._remove()
            self._lock.release()
        if self.plan is None:
            with contextlib.suppress(OSError):
                os.rmdir(self.folder)

    def _remove(self) -> None:
        """Remove the files of a submission that was refused, or had nothing to submit."""
        for path in (self._journal_path, self.rows_path):
            with contextlib.suppress(OSError):
                os.unlink(path)


def planned_options(output: str) -> Dict[str, Any]:
    """Return the options of a job that the submission of an output has decided.

    Raises:
        ConfigurationError: there is none.
    """
    plan = read_submission(folder_of(output)).plan
    assert plan is not None
    return dict(plan.job_options)


@contextlib.contextmanager
def planned(output: str) -> Iterator[Submission]:
    """Lend the submission of an output, locked.

    Raises:
        JournalBusyError: another process has it.
        ConfigurationError: there is none.
    """
    folder = folder_of(output)
    read_submission(folder)  # no folder is made where there was none
    with Submission(folder) as submission:
        yield submission


def read_submission(folder: str) -> Submission:
    """Return a submission as its journal is now, to look at and not to change.

    Raises:
        ConfigurationError: there is none.
    """
    submission = Submission(folder)
    submission.read()
    if submission.plan is None:
        raise ConfigurationError(f"nothing was submitted for this output: there is no {folder}; submit its input first")
    return submission


def refuse_unfinished(output: str) -> None:
    """Refuse a run whose rows may be in batches that are paid for already.

    Raises:
        ConfigurationError: there are batches whose answers were not collected.
    """
    submission = Submission(folder_of(output))
    submission.read()
    count = sum(not part.is_collected for part in submission.parts)
    if count:
        batches = "a batch" if count == 1 else f"{count:,} batches"
        raise ConfigurationError(
            f"rows of this input are in {batches} of the Batch API and would be paid twice: collect the answers first "
            f"(chatpool batch collect {output}), or cancel and then collect"
        )
