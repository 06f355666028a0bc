"""Sends tasks to the worker and prints what it answers, as JSON: ``celery_client.py TASK PROMPT...``."""

from __future__ import annotations

import json
import sys

import celery_app

task = getattr(celery_app, sys.argv[1])
results = [task.delay(prompt) for prompt in sys.argv[2:]]
print(json.dumps([result.get(timeout=60) for result in results]))
