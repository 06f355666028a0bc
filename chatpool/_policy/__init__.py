"""Decisions on retries, pacing, health and budget: time in, decision out; no sleeping, locks or I/O."""
