"""The end of a process whose pool nobody closes."""

from __future__ import annotations


def test_a_script_that_forgets_close_finishes_what_it_submitted(server, script, ended):
    process = script(
        """
        import os, sys, chatpool
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4)
        for number in range(50):
            future = pool.submit(str(number))
            future.add_done_callback(lambda future: os.write(1, f"{future.result().text}\\n".encode()))
        """,
        server,
    )
    code, out, err = ended(process)
    assert (code, err) == (0, "")
    assert sorted(out.split(), key=int) == [str(number) for number in range(50)]


def test_a_script_that_ends_by_an_exception_gives_it_up(stalling_server, script, ended):
    process = script(
        """
        import sys, chatpool
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4)
        futures = [pool.submit("a") for number in range(50)]
        raise LookupError("of the script's own")
        """,
        stalling_server,
    )
    code, _, err = ended(process)
    assert code == 1
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("LookupError: of the script's own")


def test_a_with_block_left_by_an_exception_does_not_wait(stalling_server, script, ended):
    process = script(
        """
        import sys, chatpool
        with chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4) as pool:
            pool.submit("a")
            sys.exit(3)
        """,
        stalling_server,
    )
    assert ended(process) == (3, "", "")


def test_a_collected_pool_ends_its_threads(server, script, ended):
    process = script(
        """
        import gc, sys, threading, chatpool
        gc.disable()
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4)
        pool.map(["a"] * 20)
        pool.chat("b")
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("chatpool")]
        assert threads
        del pool
        counts_at_once = getattr(sys, "_is_gil_enabled", lambda: True)()
        for thread in threads:
            while thread.is_alive() and not counts_at_once:  # threads that wait count no references to what is theirs
                gc.collect()
                thread.join(0.1)
            thread.join(60)
        print([thread.is_alive() for thread in threads if thread.is_alive()])
        """,
        server,
    )
    assert ended(process) == (0, "[]\n", "")


def test_a_bar_that_is_open_when_the_program_ends_is_no_trouble(server, script, ended):
    process = script(
        """
        import sys, threading, chatpool
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4)
        answers = pool.imap(["a"] * 500, progress={"file": sys.stdout, "mininterval": 0})
        print(next(answers).value.text)
        threads = [thread for thread in threading.enumerate() if thread.name == "chatpool-progress"]
        import atexit
        from chatpool._observe import bar
        atexit.unregister(bar._at_exit)  # so that it is called before this one
        atexit.register(lambda: print("alive:", [thread.name for thread in threads if thread.is_alive()], len(threads)))
        atexit.register(bar._at_exit)
        """,
        server,
    )
    code, out, err = ended(process)
    assert (code, err) == (0, "")
    assert "alive: [] 1\n" in out


def test_a_stream_with_heartbeats_that_is_open_when_the_program_ends_is_no_trouble(stalling_server, script, ended):
    process = script(
        """
        import sys, chatpool
        pool = chatpool.ChatPool("m", base_url=sys.argv[1], max_workers=4)
        events = pool.stream("a").events(heartbeat=0.02)
        print(next(events))
        """,
        stalling_server,
    )
    assert ended(process) == (0, "None\n", "")


def test_a_pool_that_is_never_used_costs_no_thread(server, script, ended):
    process = script(
        """
        import sys, threading, chatpool
        pool = chatpool.ChatPool("m", base_url=sys.argv[1])
        print(threading.active_count())
        """,
        server,
    )
    assert ended(process) == (0, "1\n", "")
