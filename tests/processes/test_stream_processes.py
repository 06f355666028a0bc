"""Streams that are open when something happens to their process."""

from __future__ import annotations

import signal

import pytest

from chatpool.testing import Stream

FORKS = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this platform does not fork")
START = """
import os, sys, threading, warnings, chatpool
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork of a process with threads
pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=2)
"""


@FORKS
@pytest.mark.parametrize(
    "end",
    ["", "stream.close()", *[pytest.param(end, marks=pytest.mark.slow) for end in ("del stream", "pool.close()")]],
)
def test_a_fork_leaves_an_open_stream_to_the_parent(server, script, ended, end):
    server.set_script({"tell": Stream(["Once", " upon", " a time"], every=0.05)})
    process = script(
        START
        + f"""
stream = pool.stream("tell")
next(stream), next(stream)
child = os.fork()
if child == 0:
    try:
        next(stream)
    except chatpool.CallCancelledError as error:
        print("parent process" in str(error), pool.chat("mine"), pool.stats().in_flight, flush=True)
    {end}
    os._exit(0)
_, status = os.waitpid(child, 0)
rest = "".join(map(str, stream))
print(status, stream.completion, pool.stats().in_flight)
""",
        server,
    )
    assert ended(process) == (0, "True mine 0\n0 Once upon a time 0\n", "")


@pytest.mark.slow
@FORKS
def test_a_child_streams_over_connections_of_its_own(server, script, ended):
    process = script(
        START
        + """
list(pool.stream("before"))
child = os.fork()
name = "parent" if child else "child"
for number in range(20):
    with pool.stream(f"{name} {number}") as stream:
        assert "".join(map(str, stream)) == f"{name} {number}"
if child == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1])
""",
        server,
    )
    assert ended(process) == (0, "0\n", "")


LOOP = """
try:
    with pool.stream("tell") as stream:
        for chunk in stream:
            print(chunk, flush=True)
except KeyboardInterrupt:
    print(stream.text, pool.stats().in_flight, pool.chat("usable"))
    raise
"""


def test_ctrl_c_ends_a_stream_and_leaves_the_pool_usable(server, script, ended):
    server.set_script({"tell": Stream(["Once"], end="stall")})
    process = script(START + LOOP, server)
    assert process.stdout.readline() == "\n"
    assert process.stdout.readline() == "Once\n"
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == -signal.SIGINT
    assert out == "Once 0 usable\n"
    assert err.rstrip().endswith("KeyboardInterrupt")
    server.wait_until(lambda: server.open_connections == 0)


@pytest.mark.slow
def test_ctrl_c_before_the_first_chunk_ends_the_call(server, script, ended):
    server.set_script({"tell": Stream([], end="stall")})
    process = script(START + LOOP, server)
    server.wait_for(1)
    process.send_signal(signal.SIGINT)
    code, out, _ = ended(process)
    assert code == -signal.SIGINT
    assert out == " 0 usable\n"


@pytest.mark.slow
def test_ctrl_c_ends_a_run_of_streams(server, script, ended):
    server.set_script({"tell": Stream(["Once"], end="stall")})
    process = script(
        START
        + """
try:
    with pool.stream_many(["tell"] * 10) as pairs:
        for index, piece in pairs:
            print(piece, flush=True)
except KeyboardInterrupt:
    print(pool.stats().in_flight, pool.stats().queued, pool.chat("usable"))
    raise
""",
        server,
    )
    server.wait_for(2)
    assert sorted(process.stdout.readline() for _ in range(4)) == ["\n", "\n", "Once\n", "Once\n"]
    process.send_signal(signal.SIGINT)
    code, out, _ = ended(process)
    assert code == -signal.SIGINT
    assert out == "0 0 usable\n"


DAEMON = """
begun = threading.Event()
threading.Thread(target=lambda: (next(stream), begun.set(), threading.Event().wait()), daemon=True).start()
begun.wait()
"""


@pytest.mark.parametrize(
    "holder",
    [
        "next(stream)",
        "thread = threading.Thread(target=next, args=(stream,)); thread.start(); thread.join()",
        DAEMON,
    ],
    ids=["main thread", "a thread that is gone", "a daemon thread"],
)
def test_a_script_that_ends_with_an_open_stream_ends(server, script, ended, holder):
    server.set_script({"tell": Stream(["Once"], end="stall")})
    process = script(START + f'\nstream = pool.stream("tell")\n{holder}\nprint("end")\n', server)
    assert ended(process) == (0, "end\n", "")
