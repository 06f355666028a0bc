"""A program: the same call again and again, interrupted at one moment after another, until all of them had their turn.

    python any_moment.py BASE_URL CALL STEP

STEP is 1 for all moments, 2 for every second one, and so on.
A moment is one at which CPython looks for signals: where a function begins, at the end of a loop's turn, and after a
call of what is written in C (before 3.11, after any call).
"""

from __future__ import annotations

import dis
import faulthandler
import sys
from types import CodeType, FrameType
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import chatpool

TRACED = ("chatpool", "threading", "concurrent.futures")
BEGINNINGS = ("CALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE")
LOOKS = {code for name, code in dis.opmap.items() if name.startswith(BEGINNINGS) and "NO_INTERRUPT" not in name}

CALLS: Dict[str, Callable[[chatpool.ChatPool], object]] = {
    "chat": lambda pool: pool.chat("a"),
    "submit": lambda pool: pool.submit("a").result(),
    "map": lambda pool: pool.map(["a", "b", "c"]),
    "as_completed": lambda pool: list(pool.as_completed(["a", "b", "c"])),
    "stream": lambda pool: list(pool.stream("a")),
    "another pool": lambda pool: use(chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=2)),
}


def use(pool: chatpool.ChatPool) -> None:
    """Use a pool up to its end."""
    with pool:
        pool.map(["a", "b", "c"])


class Interrupter:
    """A trace function that raises KeyboardInterrupt at the moment of number ``at``."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0
        self.where = ""
        self._last: Dict[FrameType, int] = {}  # the offset of the last instruction
        self._returned = False  # a function has just returned

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Optional[Interrupter]:
        if not frame.f_globals.get("__name__", "").startswith(TRACED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "return":
            self._last.pop(frame, None)
            self._returned = True
        elif event == "opcode":
            before = self._last.get(frame)
            self._last[frame] = frame.f_lasti
            if before is not None and self._is_moment(frame.f_code, before, frame.f_lasti):
                self._count(frame)
            self._returned = False
        return self

    def _is_moment(self, code: CodeType, before: int, now: int) -> bool:
        if code.co_code[before] not in LOOKS:
            return False
        if sys.version_info < (3, 11):
            return True
        # An exception belongs to the instruction that looked, and here it is raised in the next one.
        return not self._returned and handler_at(code, before) == handler_at(code, now)

    def _count(self, frame: FrameType) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
            sys.settrace(None)
            self._last.clear()  # a frame keeps all of its objects alive
            raise KeyboardInterrupt


def handler_at(code: CodeType, offset: int) -> Optional[int]:
    """Where an exception of the instruction at ``offset`` is caught, by the function's exception table (3.11)."""
    for start, end, target in handlers(code):
        if start <= offset < end:
            return target
    return None


known: Dict[CodeType, List[Tuple[int, int, int]]] = {}


def handlers(code: CodeType) -> List[Tuple[int, int, int]]:
    """The exception table: start, end and target in bytes (Objects/exception_handling_notes.txt of CPython)."""
    if code not in known:
        numbers = _numbers(iter(code.co_exceptiontable))  # type: ignore[attr-defined]  # 3.11
        known[code] = [
            (2 * start, 2 * (start + length), 2 * target) for start, length, target, _ in zip(*[numbers] * 4)
        ]
    return known[code]


def _numbers(table: Iterator[int]) -> Iterator[int]:
    for byte in table:
        number = byte & 63
        while byte & 64:
            byte = next(table)
            number = number << 6 | byte & 63
        yield number


def main(base_url: str, call: str, step: int) -> None:
    """Print how many moments there were, and where an interruption was not what came of it."""
    pool = chatpool.ChatPool("m", base_url=base_url, max_workers=2)
    at = tried = wrong = 0
    sys._getframe().f_trace_opcodes = True  # 3.12 reports opcodes only if some frame asks for them before settrace
    interrupter = Interrupter(0)
    while interrupter.seen >= at:
        at, tried = at + step, tried + 1
        interrupter = Interrupter(at)
        faulthandler.dump_traceback_later(30, exit=True)
        sys.settrace(interrupter)
        try:
            CALLS[call](pool)
        except KeyboardInterrupt:
            pass
        except BaseException as error:
            wrong += 1
            print(f"{interrupter.where}: {error!r}", file=sys.stderr)
        finally:
            sys.settrace(None)
        if None in pool.map(["x", "y"]):
            wrong += 1
            print(f"{interrupter.where}: the calls after it failed", file=sys.stderr)
    pool.close()
    faulthandler.cancel_dump_traceback_later()
    print(tried - 1, wrong)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
