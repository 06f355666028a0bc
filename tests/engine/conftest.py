"""The simulation of the engine."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from simulation import Simulation


@pytest.fixture
def simulate():
    """A function that makes a simulation; one server without a name is that of the only endpoint."""
    simulations = []

    def make(servers, max_workers, *args, **options):
        servers = servers if isinstance(servers, dict) else {"s": servers}
        simulations.append(Simulation(servers, max_workers, *args, **options))
        return simulations[-1]

    yield make
    for simulation in simulations:
        simulation.engine.abort()
