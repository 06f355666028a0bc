"""Limits that no server has stated, learned from what it rejects."""
