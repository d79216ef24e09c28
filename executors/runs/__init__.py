"""Runs that have been started: finding them, their states and results, resuming them, and cleaning up."""
