"""Pacing: simulated servers on a fake clock, and the same kinds of server on real sockets."""
