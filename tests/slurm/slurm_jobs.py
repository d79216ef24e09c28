"""Slurm jobs whose ranks are small Python scripts."""

import dataclasses
import sys

import executors
from executors.slurm import SlurmExecutor
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


def make_recipe(num_nodes=1, devices=1):
    """Return a valid recipe for so many processes that names files that are there."""
    language = config(
        LanguageConfig,
        num_layers=1,
        hidden_size=8,
        ffn_hidden_size=8,
        num_attention_heads=1,
        num_query_groups=1,
        vocab_size=16,
        max_position_embeddings=16,
    )
    return config(
        Recipe,
        name="tiny",
        model=config(ModelConfig, language=language),
        data=config(
            TextDataConfig, data_path=__file__, tokenizer="owner/name", sequence_length=16, global_batch_size=24
        ),
        parallel=config(ParallelConfig),
        precision=config(PrecisionConfig),
        optim=config(OptimConfig),
        trainer=config(TrainerConfig, max_steps=1, num_nodes=num_nodes, devices=devices),
        checkpoint=config(CheckpointConfig),
        logging=config(LoggingConfig),
    )


def make_job(script, runs_dir, num_nodes=1, devices=1, *, name=None, arguments=(), **fields):
    """Return a job whose ranks run the Python file `script`; the run directory is its last argument."""
    executor = SlurmExecutor(**fields)
    job = executors.plan_job(make_recipe(num_nodes, devices), executor, name=name, runs_dir=runs_dir)
    return dataclasses.replace(job, argv=(sys.executable, "-S", str(script), *arguments))


def start(script, runs_dir, num_nodes=1, devices=1, **options):
    """Start a script as a detached run."""
    return executors.start_job(make_job(script, runs_dir, num_nodes, devices, **options), detach=True)
