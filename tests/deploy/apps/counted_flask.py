"""The Flask application of the examples, for machines under load, and what it has open."""

from __future__ import annotations

import flask_app
from counted import counts

import chatpool

flask_app.HEARTBEAT_SECONDS = 0.03
flask_app.ANSWER_SECONDS = 300
flask_app.pool = flask_app.pool.with_options(timeout=chatpool.Timeout(total=300))
app = flask_app.app
app.get("/counts")(counts)
