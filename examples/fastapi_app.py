"""A FastAPI application: endpoints in threads and on the event loop, and streams that end when their visitor leaves."""

import asyncio
import contextlib
import json
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from chatpool import ChatPool, ChatPoolError, Timeout
from chatpool.contrib.asgi import closing

ANSWER_SECONDS = 20
HEARTBEAT_SECONDS = 1
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # for proxies: pass each event on at once


@contextlib.asynccontextmanager
async def lifespan(app):
    """Open the pool when a process of the server starts, and close it when it ends."""
    to_thread.current_default_thread_limiter().total_tokens = 100  # ``def`` endpoints at once; AnyIO's own: 40
    app.state.pool = ChatPool("gpt-4o-mini", max_workers=100, timeout=Timeout(total=ANSWER_SECONDS))
    yield
    await asyncio.to_thread(app.state.pool.close)


app = FastAPI(lifespan=lifespan)


async def get_pool(request: Request) -> ChatPool:  # with ``def`` it would take one of the threads
    """Return the pool; tests put another one in its place."""
    return request.app.state.pool


Pool = Annotated[ChatPool, Depends(get_pool)]


@app.get("/answer")
def answer(question: str, pool: Pool):
    """Answer one question, in a thread."""
    return {"answer": pool.chat(question).text}


@app.post("/answers")
async def answers(questions: list[str], request: Request, pool: Pool):
    """Answer every question, without a thread; None in the place of an answer that did not come in time."""
    replies = await unless_left(request, ask(pool, questions))
    return {"answers": [None if isinstance(reply, BaseException) else reply.text for reply in replies]}


async def ask(pool, questions):
    """Return a reply or an error for each question."""
    calls = [asyncio.wrap_future(pool.submit(question)) for question in questions]
    return await asyncio.gather(*calls, return_exceptions=True)


async def unless_left(request, work):
    """Return what a coroutine returns; cancel it, and with it its calls, when the visitor leaves."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left(request))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499, "the visitor has left")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def left(request):
    """Wait until the visitor has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@app.get("/stream")
async def stream(question: str, pool: Pool):
    """Show the answer while it is written, as server-sent events."""
    events = closing(events_of(pool, question))
    return StreamingResponse(events, media_type="text/event-stream", headers=STREAM_HEADERS)


def events_of(pool, question):
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


@app.exception_handler(ChatPoolError)
async def unavailable(request, error):
    """Answer 503, and when to come back."""
    seconds = getattr(error, "retry_after", None) or 5
    return JSONResponse({"error": type(error).__name__}, 503, {"Retry-After": str(int(seconds) + 1)})
