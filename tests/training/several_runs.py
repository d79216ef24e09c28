"""One rank of several runs, trained one after the other as `neva_model.worker` trains each: RUN_DIR...

Starting a process takes longer than a short run. Each run gets its own log and exit code. Ranks that a run has no use
for wait at the next one; a run that fails ends those behind it if other ranks may wait for this one.
"""

import os
import sys
from pathlib import Path

from neva_model.worker import main
from neva_recipes.config import build, load_recipe
from neva_recipes.plan import layout_of


def train_all(directories: list[Path]) -> int:
    first_port, rank = int(os.environ["MASTER_PORT"]), int(os.environ["RANK"])
    codes = []
    for number, directory in enumerate(directories):
        size = layout_of(build(load_recipe(directory / "recipe.yaml"))).world_size
        if rank >= size:
            continue
        os.environ |= {
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_PORT": str(first_port + number),
        }
        with (directory / f"rank-{rank}.log").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        codes.append(main([str(directory)]))
        sys.stdout.flush()
        (directory / f"exit-code-{rank}").write_text(str(codes[-1]))
        if codes[-1] and size > 1:
            return codes[-1]
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    os._exit(train_all([Path(argument) for argument in sys.argv[1:]]))
