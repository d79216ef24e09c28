"""What holds for every test."""

import os
import signal

from hypothesis import settings

# Every machine draws the same examples, and none is too slow for them; `--hypothesis-profile=default` draws others.
settings.register_profile("tests", derandomize=True, deadline=None, database=None)
settings.load_profile("tests")

# What people set for themselves, and commands go by.
for variable in ("COLUMNS", "FORCE_COLOR", "HF_TOKEN", "NO_COLOR", "WANDB_API_KEY"):
    os.environ.pop(variable, None)
os.umask(0o022)

# Shells start jobs in the background, and nohup starts everything, with these ignored, and so would every command that
# a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
