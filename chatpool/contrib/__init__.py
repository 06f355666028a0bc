"""Thin layers between a pool and what it is used in: web frameworks, task queues, metrics and traces.

Each module imports its framework, which an extra of the same name installs (``pip install chatpool[django]``).
"""
