"""A Flask application: several questions in one view, and an answer that is shown while it is written."""

import json

from flask import Flask, Response, request, stream_with_context

from chatpool import ChatPool, ChatPoolError, Timeout

ANSWER_SECONDS = 20
HEARTBEAT_SECONDS = 1
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # for proxies: pass each event on at once

app = Flask(__name__)
pool = ChatPool("gpt-4o-mini", max_workers=32, timeout=Timeout(total=ANSWER_SECONDS))


@app.post("/answers")
def answers():
    """Answer every question of a form; None in the place of an answer that did not come in time."""
    replies = pool.map(request.form.getlist("question"), run_timeout=ANSWER_SECONDS, progress=False)
    if replies.fatal and not any(replies):  # a refused key, no credit: the site's trouble, not the questions'
        raise replies.fatal
    return {"answers": replies.texts}


@app.get("/stream")
def stream():
    """Show the answer to ``?question=`` while it is written, as server-sent events."""
    events = stream_with_context(events_of(request.args["question"]))
    return Response(events, mimetype="text/event-stream", headers=STREAM_HEADERS)


def events_of(question):
    """Yield an event for each piece of text, and one for the end; a comment whenever nothing came for a second."""
    try:
        with pool.stream(question) as stream:
            for chunk in stream.events(heartbeat=HEARTBEAT_SECONDS):
                if chunk is None:
                    yield ": keep-alive\n\n"
                elif chunk.text:
                    yield event("text", chunk.text)
            yield event("done", stream.completion.finish_reason)
    except ChatPoolError as error:
        yield event("error", type(error).__name__)


def event(name, value):
    """Return a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"


@app.errorhandler(ChatPoolError)
def unavailable(error):
    """Answer 503, and when to come back; the message of the error is for the log."""
    app.logger.warning("%s: %s", type(error).__name__, error)
    seconds = getattr(error, "retry_after", None) or 5
    return {"error": type(error).__name__}, 503, {"Retry-After": str(int(seconds) + 1)}
