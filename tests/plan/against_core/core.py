"""Ask Megatron-Core what happens to recipes, by building and training each of them on CPU."""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neva_recipes.config import Recipe

__all__ = ["Verdict", "ask_core"]

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Verdict:
    """What happens to a recipe.

    Attributes:
        reason: Why it does not work. Empty if it does: it is built, takes two steps, losses and gradient norms of
            both equal those of the same training in one process, and nothing it asks for is silently left undone.
        losses: Loss of each step taken.
        grad_norms: Gradient norm of each step taken.
    """

    reason: str
    losses: tuple[float, ...] = ()
    grad_norms: tuple[float, ...] = ()

    @property
    def works(self) -> bool:
        return not self.reason


def ask_core(recipes: Sequence[Recipe]) -> list[Verdict]:
    """Return what happens to each recipe, as it is: nothing of the plan is asked."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "recipes", Path(directory) / "verdicts"
        source.write_bytes(pickle.dumps(list(recipes)))
        command = [sys.executable, "-W", "ignore", "-m", "tests.plan.against_core.batch", str(source), str(target)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        verdicts: list[Verdict] = pickle.loads(target.read_bytes())
    return verdicts
