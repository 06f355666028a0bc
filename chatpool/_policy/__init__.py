"""Decisions: clock in, decision out.  Nothing here sleeps, locks or does I/O."""
