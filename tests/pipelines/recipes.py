"""A recipe that any plan accepts."""

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


def make_recipe(name="tiny", **trainer):
    """Return a valid recipe of one process that names files that are there."""
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
        name=name,
        model=config(ModelConfig, language=language),
        data=config(
            TextDataConfig, data_path=__file__, tokenizer="owner/name", sequence_length=16, global_batch_size=12
        ),
        parallel=config(ParallelConfig),
        precision=config(PrecisionConfig),
        optim=config(OptimConfig),
        trainer=config(TrainerConfig, **{"max_steps": 1, "devices": 1, **trainer}),
        checkpoint=config(CheckpointConfig),
        logging=config(LoggingConfig),
    )
