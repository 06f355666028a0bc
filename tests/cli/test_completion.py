"""``chatpool completion``: the scripts work in the shells themselves."""

from __future__ import annotations

import shutil
import subprocess

import pytest

BASH = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_shtab_chatpool chatpool "${{COMP_WORDS[COMP_CWORD]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def script(run, tmp_path):
    """``script(shell)`` writes the script for a shell, and skips the test where there is no such shell."""
    pytest.importorskip("shtab")

    def write(shell):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        ended = run("completion", shell)
        assert ended.code == 0
        path = tmp_path / f"completion.{shell}"
        path.write_text(ended.out)
        return path

    return write


def output_of(*command, folder):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True).stdout.split(
        "\n"
    )


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("chatpool wa", {"watch"}),
        ("chatpool run --rp", {"--rpd", "--rpm"}),
        ("chatpool run --format c", {"csv"}),
        ("chatpool local ins", {"install"}),
        ("chatpool shards sta", {"status"}),
        ("chatpool shards run --al", {"--all"}),
        ("chatpool shards status wo", {"work"}),
        ("chatpool watch answ", {"answers.jsonl"}),
    ],
)
def test_bash_completes(script, tmp_path, words, found):
    (tmp_path / "answers.jsonl").touch()
    (tmp_path / "work").mkdir()
    program = BASH.format(script=script("bash"), words=words)
    assert found == set(output_of("bash", "-c", program, folder=tmp_path)) - {""}


def test_fish_completes(script, tmp_path):
    program = f'source {script("fish")}; complete -C "chatpool run --rpm"; complete -C "chatpool wat"'
    assert [line.split("\t")[0] for line in output_of("fish", "-c", program, folder=tmp_path)] == ["--rpm", "watch", ""]


def test_zsh_takes_the_script(script, tmp_path):
    output_of("zsh", "-n", str(script("zsh")), folder=tmp_path)


def test_without_shtab_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    ended = run("completion", "bash")
    assert (ended.code, "pip install 'chatpool[completion]'" in ended.err) == (2, True)
