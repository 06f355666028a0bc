"""What chatpool is for, in under a minute: a run over a bad server that is killed, goes on, and loses nothing.

    python examples/demo.py [--no-model]

2,000 sums go to a practice server on this machine that breaks a fifth of all calls. In the middle the run is killed
with ``kill -9``; the same command goes on, and the demo looks at what came of it. Then a small language model answers a
few questions (needs the extra ``local`` and, once, 93 MB; ``--no-model`` leaves it out). ``make demo`` does all of it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Set

import chatpool
from chatpool import ChatPool
from chatpool.testing import FakeServer, Faults

ROWS = 2000
WORKERS = 32
FAULTS = Faults({503: 0.07, 429: 0.04, "reset": 0.04, "truncate": 0.03, "garbage": 0.02}, seed=1)
CAPITALS = {"France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Japan": "Tokyo", "Egypt": "Cairo"}


def main(*options: str) -> int:
    """Run the demo; returns 0 if nothing was lost."""
    folder = Path(tempfile.mkdtemp(prefix="chatpool-demo-"))
    lost = killed_and_resumed(folder)
    if "--no-model" not in options:
        few_questions()
    return 1 if lost else 0


# -- a run that is killed ---------------------------------------------------------------------------------


def killed_and_resumed(folder: Path) -> int:
    """Kill a run in the middle and let it go on; returns how many rows are lost, wrong or were sent for nothing."""
    prompts, answers = folder / "sums.jsonl", folder / "answers.jsonl"
    sums = [(number, number * 7 % 1000) for number in range(ROWS)]
    prompts.write_text("".join(json.dumps({"prompt": f"{a} + {b} ="}) + "\n" for a, b in sums), encoding="utf-8")
    with FakeServer(reply=add, faults=FAULTS, latency=0.15) as server:
        command = [sys.executable, "-m", "chatpool.cli", "run", str(prompts), "-o", str(answers)]
        command += ["--in-order", "--base-url", server.base_url, "--model", "practice", "--max-workers", str(WORKERS)]
        say(f"{ROWS:,} prompts to a server that breaks 20 % of all calls, {WORKERS} at once:")
        run = subprocess.Popen(command, env=environment())  # noqa: S603 - made above
        follow(run, folder / "answers.journal", ROWS // 2)
        run.kill()
        run.wait()
        recorded, sent_before = recorded_in(folder / "answers.journal"), len(server.requests)
        say(f"\nKilled (kill -9) with {len(recorded):,} answers on disk. The same command again:")
        run = subprocess.Popen(command, env=environment())  # noqa: S603 - made above
        follow(run, folder / "answers.journal", ROWS)
        code = run.wait()
        requests = [request.prompt for request in server.requests]
    return verdict(answers, sums, recorded, requests, sent_before, code)


def add(body: Dict[str, Any]) -> str:
    """The practice server's answer to a request body: the sum."""
    return str(sum(map(int, re.findall(r"\d+", body["messages"][-1]["content"]))))


def environment() -> Dict[str, str]:
    """The environment of the run; a key of yours is not needed, and not sent."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}


def follow(run: subprocess.Popen[bytes], journal: Path, rows: int) -> None:
    """Wait until so many rows are in the journal, or the run has ended; where it shows no bar, say how far it is."""
    said_at = time.monotonic()
    while run.poll() is None:
        recorded = journal.read_bytes().count(b'"state":"o"') if journal.exists() else 0
        if recorded >= rows:
            return
        if not sys.stderr.isatty() and time.monotonic() - said_at >= 1:
            said_at = time.monotonic()
            say(f"  {recorded:,} of {ROWS:,} rows")
        time.sleep(0.05)


def recorded_in(journal: Path) -> Set[str]:
    """The prompts whose answers are in the journal: line by line, a record as JSON; the last may be torn."""
    recorded = set()
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("state") == "o":
            number = record["row"] - 1
            recorded.add(f"{number} + {number * 7 % 1000} =")
    return recorded


def verdict(
    answers: Path, sums: List[Any], recorded: Set[str], requests: List[str], sent_before: int, code: int
) -> int:
    """Print what came of the run, and write the report page."""
    texts = [text_of(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    right = sum(text == str(a + b) for text, (a, b) in zip(texts, sums))
    again = recorded & set(requests[sent_before:])
    page = answers.with_name("report.html")
    report = chatpool.batch.report(answers)
    page.write_text(report.html(), encoding="utf-8")
    lost = ROWS - right + len(texts) - ROWS + len(again) + code
    say(f"\n{right:,} of {ROWS:,} rows answered right and in order; {len(requests) - ROWS:,} calls were made again.")
    say(f"Rows that were on disk before the kill and were sent again: {len(again)}.")
    say(f"The report of the run: {page}")
    return lost


def text_of(line: str) -> str:
    """The answer in a line of the output."""
    choices: List[Any] = json.loads(line)["response"]["body"]["choices"]
    return str(choices[0]["message"]["content"])


# -- a model ----------------------------------------------------------------------------------------------


def few_questions() -> None:
    """Have a real, very small model answer some questions, word by word."""
    from chatpool.local import LocalServer, install  # the extra local

    say("\nA real model on this machine (135 million parameters; it knows little), streamed:")
    install()
    right = 0
    with LocalServer() as server, ChatPool(server.model, base_url=server.base_url) as pool:
        for country, capital in CAPITALS.items():
            question = f"What is the capital of {country}? Answer in one sentence."
            print(f"  {country:>7}: ", end="", flush=True)
            with pool.stream(question, temperature=0, max_tokens=32) as stream:
                for chunk in stream:
                    print(chunk.text.replace("\n", " "), end="", flush=True)
            is_right = capital in stream.text
            right += is_right
            print("" if is_right else f"   (wrong: {capital})")
    say(f"{right} of {len(CAPITALS)} right.")


def say(words: str) -> None:
    """Print at once, in order with what the run itself prints."""
    print(words, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
