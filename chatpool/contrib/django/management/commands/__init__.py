"""``chatpool_check`` and ``chatpool_run``."""
