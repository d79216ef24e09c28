"""The executor to check, and a recipe for its jobs."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.base import Executor
from executors.runs.run import Run
from neva_recipes.config import (
    CheckpointConfig,
    LanguageConfig,
    LoggingConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    Recipe,
    TextDataConfig,
    TrainerConfig,
    config,
)
from neva_recipes.plan import Layout

__all__ = ["Subject", "tiny_recipe"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The executor to check, and what it needs for a small job.

    Attributes:
        make: Returns the executor with the given fields (`env`).
        folder: An empty folder that jobs can read and write under the same path.
        refused: A layout that it cannot provide; `None` if it accepts every layout.
        python: Python of the ranks, 3.9 or newer.
        world_size: Processes of a job: at least 2, or 1 if two are impossible.
        patience: Seconds that a job may take to start or to end.
        in_folder: Whether the ranks start in the current folder of the command, as they do if it exists for them.
        refused_in_paths: Texts of `HOSTILE` that the path of a run directory cannot hold.
        written: Returns files and folders elsewhere that the executor or its backend has written.
        told: Returns what the backend reports about a running run, by the command that asked it.
    """

    make: Callable[..., Executor]
    folder: Path
    refused: Layout | None = None
    python: str = sys.executable
    world_size: int = 2
    patience: float = 120.0
    in_folder: bool = True
    refused_in_paths: tuple[str, ...] = ()
    written: Callable[[], Iterable[Path]] = tuple
    told: Callable[[Run], Mapping[str, str]] = lambda _: {}


def tiny_recipe(name: str = "tiny", **trainer: Any) -> Any:
    """Return a recipe for jobs that do not train, which is planned without errors and warnings.

    Args:
        name: Name of the recipe.
        **trainer: Fields of its `trainer`; `devices` (per node) and `num_nodes` set the layout.
    """
    language = config(
        LanguageConfig,
        num_layers=1,
        hidden_size=8,
        ffn_hidden_size=8,
        num_attention_heads=1,
        num_query_groups=1,
        vocab_size=16,
        make_vocab_size_divisible_by=16,
        max_position_embeddings=16,
    )
    return config(
        Recipe,
        name=name,
        model=config(ModelConfig, language=language),
        data=config(
            TextDataConfig, data_path=__file__, tokenizer="owner/name", sequence_length=16, global_batch_size=24
        ),
        parallel=config(ParallelConfig),
        precision=config(PrecisionConfig),
        optim=config(OptimConfig, warmup_ratio=None),
        trainer=config(TrainerConfig, **{"max_steps": 1, "devices": 1, **trainer}),
        checkpoint=config(CheckpointConfig),
        logging=config(LoggingConfig),
    )
