"""Kills a program at every call that changes a folder: `python -m tests.kill_points ACTIONS.json`.

The libraries are imported once, and each attempt is a fork of this process: with them in place a short training takes a
fraction of a second. An audit hook counts the calls; before the call whose number is asked for, it kills the group of
the attempt with SIGKILL. Processes that an attempt forks, such as Core's writers, count with it.
"""

import contextlib
import gc
import importlib
import json
import mmap
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Attempts:
    """Runs an action in forks of this process.

    Args:
        watched: Only calls that name a path below this folder count.
        log: Where attempts print.
    """

    def __init__(self, watched: Path, log: Path) -> None:
        self._watched = str(watched)
        self._log = log
        self._counter = mmap.mmap(-1, 8)  # shared with all forks

    def run(self, action: Callable[[], Any], kill_at: int = 0) -> tuple[int, int]:
        """Return how an attempt ended (0, or minus the signal that ended it) and how many calls it made.

        Args:
            action: What to do; a value other than 0 and `None` is a failure.
            kill_at: Number of the call before which it is killed; 0 lets it go on.
        """
        self._counter[:] = bytes(8)
        process = os.fork()
        if process == 0:
            code = 1
            try:
                os.setpgid(0, 0)
                with self._log.open("ab") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                sys.addaudithook(lambda event, arguments: self._look(event, arguments, kill_at))
                code = action() or 0
            except BaseException:  # noqa: BLE001 the log of the attempt says it
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(process, 0)
        return os.waitstatus_to_exitcode(status), int.from_bytes(self._counter[:], "little")

    def _look(self, event: str, arguments: tuple[Any, ...], kill_at: int) -> None:
        if event != "open" and event not in _CHANGES:
            return
        path = arguments[0]
        if not isinstance(path, str | bytes) or (event == "open" and not arguments[2] & _WRITING):
            return
        path = os.fsdecode(path)
        if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # within a folder that is open
            path = f"{Path(f'/proc/self/fd/{arguments[1]}').readlink()}/{path}"
        # TensorBoard writes from a thread of its own, and to a file of its own for each start.
        if not str(Path(path).absolute()).startswith(self._watched) or "events.out.tfevents" in path:
            return
        number = int.from_bytes(self._counter[:], "little") + 1
        self._counter[:] = number.to_bytes(8, "little")
        if number == kill_at:
            os.killpg(0, signal.SIGKILL)


def train(run: str) -> int:
    """Train the recipe of a run directory in this process, as its only rank."""
    from neva_model.worker import main

    os.environ["MASTER_PORT"] = str(_free_port())
    return main([run])


def export(run: str, directory: str) -> int:
    """Export a run."""
    from neva_model.checkpoints.export import main

    return main([run, directory])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def kill_at_every_call(order: dict[str, Any]) -> list[dict[str, Any]]:
    """Kill an action at each call, in a folder of its own each time, and let it then go on to its end.

    Args:
        order: `folder` to work in, in which `start` is copied for each attempt; `action`, a function of this module,
            and its `arguments`, in which `{}` stands for the copy; `every`, which calls to take (1 for each).
    """
    folder, start = Path(order["folder"]), Path(order["start"])
    action = globals()[order["action"]]
    _warm_up(action, order)
    found = []
    number = 0
    while True:
        number += order["every"]
        copy = folder / f"killed-{number}"
        shutil.copytree(start, copy)
        arguments = [argument.format(copy) for argument in order["arguments"]]
        attempts = Attempts(copy, folder / f"killed-{number}.log")
        print(number, flush=True)
        killed, calls = attempts.run(lambda arguments=arguments: action(*arguments), number)
        ended = attempts.run(lambda arguments=arguments: action(*arguments))[0] if killed else 0
        found.append({"directory": str(copy), "killed": killed, "calls": calls, "ended": ended})
        if killed != -signal.SIGKILL:
            return found


def _warm_up(action: Callable[..., Any], order: dict[str, Any]) -> None:
    """Import here what an attempt imports, so that the others find it."""
    folder = Path(order["folder"]) / "warm-up"
    shutil.copytree(order["start"], folder)

    def act() -> None:
        action(*(argument.format(folder) for argument in order["arguments"]))
        (folder / "modules").write_text("\n".join(sys.modules))

    Attempts(folder, folder.with_suffix(".log")).run(act)
    for name in (folder / "modules").read_text().splitlines():
        if name not in sys.modules:
            with contextlib.suppress(ImportError, AttributeError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # Core looks for garbage at every save


if __name__ == "__main__":
    from neva_model.startup import prepare_command

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "NODE_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    prepare_command()
    import torch

    torch.set_num_threads(1)
    orders = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps([kill_at_every_call(order) for order in orders]))
