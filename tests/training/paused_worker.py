"""One rank of a run that stops itself by SIGSTOP at a moment: `python -m tests.training.paused_worker RUN_DIR`.

Whoever looks for a moment from outside may come too late for it. PAUSE_RANK says which rank, and PAUSE_AT, in lines,
the patterns of what it does one after the other before it stops: prints a line, `import MODULE`, `open FILE`, `fork`.
"""

import builtins
import os
import re
import runpy
import signal
import sys
from typing import Any


def pause_after(patterns: list[str]) -> None:
    process, plain_print = os.getpid(), builtins.print

    def pause(text: str) -> None:
        if patterns and os.getpid() == process and re.search(patterns[0], text):
            del patterns[0]
            if not patterns:
                os.kill(process, signal.SIGSTOP)

    def printing(*words: Any, **options: Any) -> None:
        plain_print(*words, **options)
        pause(" ".join(map(str, words)))

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("import", "open"):
            pause(f"{event} {arguments[0]}")
        elif event == "os.fork":
            pause("fork")

    builtins.print = printing
    sys.addaudithook(look)


if __name__ == "__main__":
    if os.environ["RANK"] == os.environ["PAUSE_RANK"]:
        pause_after(os.environ["PAUSE_AT"].splitlines())
    runpy.run_module("neva_model.worker", run_name="__main__", alter_sys=True)
