"""Settings of the site; what they read from the environment is put there by serve.py."""

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

from chatpool.local import MODEL as EMBEDDED_MODEL

FOLDER = Path(os.environ.get("CHATPOOL_SITE_FOLDER", Path(__file__).parent))
MODEL = os.environ.get("CHATPOOL_SITE_MODEL", "gpt-4o-mini")

# Where the model is, and the key to it: OPENAI_BASE_URL and OPENAI_API_KEY, which a pool reads by itself.
CHATPOOL = {
    "default": {
        "MODEL": MODEL,
        "MAX_WORKERS": 16,  # calls in flight, of all visitors together
        "TIMEOUT": {"total": 300},  # small models on small machines are slow
        "SYSTEM": "Answer in two or three sentences, in plain text.",
        "DEFAULTS": {"max_tokens": 120, "temperature": 0.2} if MODEL == EMBEDDED_MODEL else {},
    }
}

SECRET_KEY = os.environ.get("CHATPOOL_SITE_SECRET") or get_random_secret_key()
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "questions.urls"
INSTALLED_APPS = ["django.contrib.humanize", "django.contrib.staticfiles", "chatpool.contrib.django", "questions"]
MIDDLEWARE = [
    "questions.middleware.SafetyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request", "questions.views.model"]},
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "site.sqlite3",
        # Pages are read while the threads of lists write.
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
