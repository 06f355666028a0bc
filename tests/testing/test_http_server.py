"""Steps as plain actions: what is cut and dripped, byte by byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatpool.testing.http_server import Break, Close, Send, Wait, cut_connection, drip

SENDS = st.builds(Send, st.binary(max_size=20), st.binary(max_size=20))
ACTIONS = st.lists(st.one_of(SENDS, st.builds(Wait, st.floats(0, 1)), st.just(Close()), st.just(Break())), max_size=6)


def sent(actions):
    return b"".join(action.head + action.body for action in actions if isinstance(action, Send))


@given(ACTIONS, st.integers(1, 60))
def test_what_is_cut_is_the_beginning(actions, size):
    assert sent(cut_connection(actions, size)) == sent(actions)[:size]


@given(ACTIONS, st.integers(1, 8), st.sampled_from(["all", "headers", "body"]))
def test_a_drip_changes_no_byte_and_no_other_action(actions, size, part):
    dripped = list(drip(actions, size=size, every=0.25, part=part))
    assert sent(dripped) == sent(actions)
    others = [action for action in dripped if not isinstance(action, Send) and action != Wait(0.25)]
    assert others == [action for action in actions if not isinstance(action, Send) and action != Wait(0.25)]


@given(st.binary(max_size=30), st.integers(1, 8))
def test_a_drip_waits_before_each_piece(data, size):
    dripped = list(drip([Send(b"", data)], size=size, every=0.25, part="all"))
    assert dripped[0::2] == [Wait(0.25)] * (-(-len(data) // size))
    assert all(len(piece.head) <= size for piece in dripped[1::2])


def test_a_drip_of_one_part_sends_the_other_whole():
    answer = [Send(b"head", b"body"), Close()]
    assert list(drip(answer, size=2, every=1, part="headers")) == [
        *(Wait(1), Send(b"he"), Wait(1), Send(b"ad")),
        *(Send(b"body"), Close()),
    ]
    assert list(drip(answer, size=2, every=1, part="body")) == [
        Send(b"head"),
        *(Wait(1), Send(b"bo"), Wait(1), Send(b"dy")),
        Close(),
    ]
