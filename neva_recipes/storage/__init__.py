"""Checkpoints and exports on the disk: their names, records and digests, by which damage is detected.

Never imports torch, because the command reads checkpoints too.
"""
