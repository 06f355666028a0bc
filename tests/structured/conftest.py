"""Pools and servers as for the tests of the pool itself."""

from tests.client.conftest import always, serve, within

__all__ = ["always", "serve", "within"]
