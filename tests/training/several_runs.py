"""One rank of several runs, trained one after the other as `neva_model.worker` trains each: RUN_DIR...

Starting a process takes longer than a short run. Ranks that a run has no use for wait at the next one.
"""

import os
import sys
from pathlib import Path

import torch

from neva_model.worker import main
from neva_recipes.config import build, load_recipe
from neva_recipes.plan import layout_of


def train_all(directories: list[str]) -> int:
    first_port = int(os.environ["MASTER_PORT"])
    for number, directory in enumerate(directories):
        size = layout_of(build(load_recipe(Path(directory) / "recipe.yaml"))).world_size
        if int(os.environ["RANK"]) >= size:
            continue
        os.environ |= {
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_PORT": str(first_port + number),
        }
        code = main([directory])
        if code:
            return code
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    result = train_all(sys.argv[1:])
    sys.stdout.flush()
    os._exit(result)
