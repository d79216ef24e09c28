"""Processes on one machine: starts ranks, reads their output, forwards signals, and leaves no process behind."""
