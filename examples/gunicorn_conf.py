"""gunicorn's settings for a site that waits for a model: gunicorn --config gunicorn_conf.py flask_app:app."""

worker_class = "gthread"
workers = 2
threads = 32  # visitors at once in each worker, streams included
timeout = 60  # seconds until a worker that does not respond is killed; above Timeout.total for the class sync
graceful_timeout = 30  # seconds for the requests under way at SIGTERM and SIGHUP; above Timeout.total (20)
max_requests = 10_000
max_requests_jitter = 1_000
preload_app = True  # a pool that was made before the fork has threads and connections of its own in each worker
