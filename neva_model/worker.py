"""The entry point of every job: `python -m neva_model.worker RUN_DIR`, once per rank.

Exit codes: 0 when training is finished, 2 for a mistake of the user's (one line on standard error), 1 for a crash,
75 when it was stopped on request (SIGUSR2 to any rank) with a checkpoint to go on from.
The first rank that fails says why in RUN_DIR/failure.json.
"""

import multiprocessing
import os
import sys
import traceback
from pathlib import Path

from neva_model.failure import record_failure
from neva_model.startup import prepare_process
from neva_model.training.stop import EXIT_STOPPED, hold_stop_signal
from neva_recipes.config import Recipe, UserError, build, load_recipe
from neva_recipes.plan import require_valid

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Train the recipe of a run directory as the rank that the environment names.

    Args:
        arguments: The run directory.

    Returns:
        The exit code.
    """
    if len(arguments) != 1:
        print("usage: python -m neva_model.worker RUN_DIR", file=sys.stderr)
        return 2
    run_directory = Path(arguments[0])
    hold_stop_signal()
    try:
        recipe_file = run_directory / "recipe.yaml"
        recipe: Recipe = build(load_recipe(recipe_file))
        require_valid(recipe)
        if recipe.parallel.tensor_model_parallel_size > 1 or recipe.parallel.context_parallel_size > 1:
            # Both overlap communication with products that must be queued in order (Megatron-LM refuses to start
            # without it on GPUs before Blackwell).
            os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
        prepare_process()
        from neva_model.training.train import train

        is_finished = train(recipe, recipe_file.read_text(encoding="utf-8"), run_directory)
    except UserError as error:
        record_failure(run_directory, "user", str(error))
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except BaseException as error:  # noqa: BLE001 whatever ends a rank must reach the person who waits for the run
        record_failure(run_directory, "crash", f"{type(error).__name__}: {error}")
        traceback.print_exc()
        return 1
    return 0 if is_finished else EXIT_STOPPED


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # A failing rank must not wait in an interpreter shutdown for ranks that wait for it in a collective. Its data
    # loaders would outlive it.
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)
