"""What Python imports first where this folder is on PYTHONPATH: rank 0 stops itself at the steps that `Holds` names."""

import io
import os
import re
import signal
import sys
from pathlib import Path


class _Output(io.TextIOWrapper):
    """Standard output that has the process stopped, as by Ctrl-Z, behind the line of a step."""

    folder = Path(os.environ.get("HOLDS", "."))
    line = ""
    held_at = 0

    def write(self, text):
        count = super().write(text)
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            self.look(line)
        return count

    def look(self, line):
        if line.startswith("training "):
            with (self.folder / "starts").open("a") as file:
                file.write("a start\n")
        elif found := re.match(r"step (\d+)/", line):
            path = self.folder / str((self.folder / "starts").read_text().count("\n"))
            step = int(path.read_text()) if path.exists() else 0
            if self.held_at < step <= int(found[1]):
                self.held_at = step
                self.flush()
                os.kill(os.getpid(), signal.SIGSTOP)


if "HOLDS" in os.environ and os.environ.get("RANK") == "0":
    sys.stdout = _Output(sys.stdout.detach(), encoding="utf-8", errors="backslashreplace", write_through=True)
