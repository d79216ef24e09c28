"""What holds for every test."""

import signal

from hypothesis import settings

# Every machine draws the same examples, and none is too slow for them; `--hypothesis-profile=default` draws others.
settings.register_profile("tests", derandomize=True, deadline=None, database=None)
settings.load_profile("tests")

# Shells start jobs in the background, and nohup starts everything, with these ignored, and so would every command that
# a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
