"""The run directory: the contract between the process that starts a run, its ranks, and later readers.

Defines the files, their names, and how they are written and read. Uses only the standard library: ranks, supervisors
and commands import it and must start in milliseconds.
"""
