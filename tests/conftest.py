"""What holds for every test."""

import signal

# Shells start jobs in the background, and nohup starts everything, with these ignored, and so would every command that
# a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
