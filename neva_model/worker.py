"""The entry point of every job: `python -m neva_model.worker RUN_DIR`, once per rank.

Exit codes: 0 if training is finished; 2 for a mistake that the user can mend (one line on standard error); 1 for a
crash or a lost rank; 75 if it was stopped on request (SIGUSR2 to any rank) with a checkpoint to go on from. The first
rank that fails writes the reason to RUN_DIR/failure.json.
"""

import multiprocessing
import os
import sys
import traceback
from pathlib import Path

from neva_model.causes import explain
from neva_model.failure import FailedTogether, record_failure
from neva_model.startup import prepare_process
from neva_model.training.stop import hold_stop_signal
from neva_recipes.config import Recipe, UserError, build, load_recipe
from neva_recipes.plan import require_valid
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE, EXIT_STOPPED
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.secrets import mask, secret_values

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
        return EXIT_MISTAKE
    run_directory = Path(arguments[0])
    hold_stop_signal()
    try:
        recipe_file = run_directory / RECIPE_FILE
        recipe: Recipe = build(load_recipe(recipe_file))
        require_valid(recipe)
        if recipe.parallel.tensor_model_parallel_size > 1 or recipe.parallel.context_parallel_size > 1:
            # Both overlap communication with products, which must be queued in order (Megatron-LM refuses to start
            # without it on GPUs before Blackwell).
            os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
        prepare_process()
        from neva_model.training.train import train

        is_finished = train(recipe, recipe_file.read_text(encoding="utf-8"), run_directory)
    except UserError as error:
        own = int(os.environ.get("RANK", "0"))
        rank = error.rank if isinstance(error, FailedTogether) else own
        record_failure(run_directory, "user", str(error), rank)
        if rank == own:
            print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_MISTAKE
    except BaseException as error:  # noqa: BLE001 the reason must reach the person who waits for the run
        if (cause := explain(error)) is not None:
            record_failure(run_directory, "user" if cause.is_own else "lost", cause.message)
            print(f"error: {mask(cause.message, secret_values(os.environ))}", file=sys.stderr, flush=True)
            return EXIT_MISTAKE if cause.is_own else 1
        record_failure(run_directory, "crash", f"{type(error).__name__}: {error}")
        traceback.print_exc()
        return 1
    return 0 if is_finished else EXIT_STOPPED


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # A failing rank must not wait at interpreter shutdown for ranks that wait for it in a collective. Its data loaders
    # would outlive it.
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)
