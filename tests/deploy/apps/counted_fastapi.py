"""The FastAPI application of the examples, for machines under load, and what it has open."""

from __future__ import annotations

import fastapi_app
from counted import counts

fastapi_app.HEARTBEAT_SECONDS = 0.03
fastapi_app.ANSWER_SECONDS = 300
app = fastapi_app.app


@app.get("/counts")
async def _counts():
    return counts()
