"""Pictures of calls: their states, their time limits, their failures."""

from __future__ import annotations

from drawing import WIDTH, Picture, drawn


@drawn(250)
def call_life(picture: Picture) -> None:
    """The four states of a call.

    A call is queued until a worker is free, then running. An answer or a final error makes it done. A failure
    that is to be retried makes it parked, with no worker; when its wait is over it is queued again, before
    fresh calls.
    """
    picture.box(20, 50, 115, 50, "queued", "grey")
    picture.box(222, 50, 115, 50, "running")
    picture.box(425, 50, 115, 50, "done", "green")
    picture.box(222, 175, 115, 50, "parked", "amber")
    picture.arrow((135, 75), (222, 75))
    picture.lines(178, 42, ["a worker", "is free"], anchor="middle")
    picture.arrow((337, 75), (425, 75))
    picture.lines(381, 42, ["answer or", "final error"], anchor="middle")
    picture.arrow((280, 100), (280, 175))
    picture.text(290, 142, "to be retried", "small soft")
    picture.arrow((222, 200), (77, 200), (77, 100))
    picture.lines(88, 150, ["its wait", "is over"])
    picture.text(425, 195, "no worker waits", "small soft")
    picture.text(425, 212, "for a parked call", "small soft")


@drawn(302)
def parked(picture: Picture) -> None:
    """Sleeping before a retry, and parking.

    Above: three workers sleep before they retry their failed calls, and send nothing meanwhile. Below: the
    failed calls are parked, the same workers make other calls meanwhile, and the retries come between them.
    """
    failed, asleep = 55.0, 190.0
    for top, words, sleeps in ((20, "Sleeping in the worker", True), (155, "Parking", False)):
        picture.text(20, top + 12, words, "bold")
        for worker in range(3):
            y = top + 25 + worker * 30
            shift = worker * 12
            picture.text(20, y + 16, f"worker {worker + 1}", "small soft")
            picture.rect(90, y, failed - 3, 22, "red", 3)
            if sleeps:
                picture.rect(90 + failed, y, asleep + shift - 3, 22, "grey", 3)
                picture.text(90 + failed + 85, y + 16, "asleep", "small soft", "middle")
                picture.rect(90 + failed + asleep + shift, y, failed - 3, 22, "green", 3)
                for number in range(2 if worker < 2 else 1):
                    picture.rect(90 + 2 * failed + asleep + shift + number * failed, y, failed - 3, 22, "blue", 3)
            else:
                for number in range(7):
                    is_retry = number == 4 - (worker == 1)
                    picture.rect(90 + (1 + number) * failed, y, failed - 3, 22, "green" if is_retry else "blue", 3)
    for x, kind, words in ((90, "red", "fails"), (170, "green", "its retry"), (280, "blue", "other calls")):
        picture.rect(x, 274, 14, 14, kind, 3)
        picture.text(x + 20, 286, words, "small")


@drawn(300)
def time_limits(picture: Picture) -> None:
    """Time limits are nested.

    run_timeout bounds a whole run. Within it Timeout.total bounds one call with its waits, Timeout.attempt one
    exchange with the server, Timeout.connect the making of a connection, and Timeout.read each silence within
    an answer.
    """

    def limit(x: float, width: float, row: int, label: str, kind: str) -> None:
        picture.rect(x, 20 + row * 42, width, 34, kind)
        picture.text(x + width / 2, 20 + row * 42 + 22, label, "small", "middle")

    limit(20, 520, 0, "run_timeout: one run", "grey")
    limit(20, 425, 1, "Timeout.total: one call, all attempts and waits", "blue")
    picture.text(495, 83, "other calls", "small soft", "middle")
    limit(20, 170, 2, "Timeout.attempt", "green")
    picture.text(220, 126, "wait", "small soft", "middle")
    limit(250, 195, 2, "Timeout.attempt", "green")
    limit(20, 82, 3, ".connect", "amber")
    limit(250, 82, 3, ".connect", "amber")
    limit(340, 50, 3, ".read", "amber")
    limit(395, 50, 3, ".read", "amber")
    picture.line((20, 215), (540, 215))
    picture.text(540, 208, "time", "small soft", "end")
    for x, words in ((190, "fails"), (445, "answered")):
        picture.line((x, 138), (x, 222), "red" if words == "fails" else "green")
        picture.text(x, 238, words, "small " + ("red" if words == "fails" else "green"), "middle")
    picture.lines(
        20,
        268,
        ["Each limit is cut to what is left of those above it:", "Timeout(total=3) is three seconds for everything."],
    )


@drawn(372)
def what_ends(picture: Picture) -> None:
    """Which error ends what.

    An attempt ends with a 5xx, a broken connection, a time-out or a 429, and is made again. A call ends with a
    400 or 422, or when its retries or its time are over. The calls of one model end with a 404 before the first
    success, when its server is down for longer than max_outage, or asks for a longer wait than retry_after_max.
    The run ends with a refused key, no credit, a proxy or a certificate that cannot be used, too many failures,
    or a spent budget.
    """
    rooms = [
        ("the run", "red", ["refused key, no credit, proxy, certificate,", "too many failures, budget spent"]),
        (
            "all calls of one model",
            "amber",
            ["404 before any success, server down too long,", "a wait of hours asked for"],
        ),
        ("one call", "blue", ["400, 422, too long, filtered; retries or time over"]),
        ("one attempt: made again", "green", ["5xx, broken connection, time-out, 429"]),
    ]
    top, height = 16.0, 340.0
    for number, (name, kind, causes) in enumerate(rooms):
        x = 16 + number * 22
        picture.rect(x, top, WIDTH - 2 * x, height, kind)
        picture.text(x + 14, top + 24, name, f"bold {kind}")
        picture.lines(x + 14, top + 44, causes, "small")
        used = 32 + 17 * len(causes) + 14
        top, height = top + used, height - used - 16
