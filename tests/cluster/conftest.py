"""Clusters for real: programs, servers and Redis as the tests of deployments have them."""

from tests.deploy.conftest import python, redis, server, start

__all__ = ["python", "redis", "server", "start"]
