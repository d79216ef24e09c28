"""The root of every recipe."""

from dataclasses import dataclass

from neva_recipes.config._node import ConfigNode
from neva_recipes.config.data import LlavaDataConfig, TextDataConfig
from neva_recipes.config.errors import RecipeError
from neva_recipes.config.model import ModelConfig
from neva_recipes.config.training import (
    CheckpointConfig,
    LoggingConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    TrainerConfig,
)

__all__ = ["Layout", "Recipe"]


@dataclass(frozen=True)
class Layout:
    """How processes and microbatches follow from a recipe.

    Attributes:
        num_nodes: Machines.
        processes_per_node: Processes on each machine, one per GPU.
        data_parallel_size: Replicas of the model.
        num_microbatches: Microbatches each replica takes per optimizer step.
    """

    num_nodes: int
    processes_per_node: int
    data_parallel_size: int
    num_microbatches: int

    @property
    def world_size(self) -> int:
        """Number of processes over all machines."""
        return self.num_nodes * self.processes_per_node


@dataclass(kw_only=True, frozen=True)
class Recipe(ConfigNode):
    """Everything one training run is made of."""

    name: str
    """Name of the recipe; runs are named after it."""
    model: ModelConfig
    """The model."""
    data: LlavaDataConfig | TextDataConfig
    """The data."""
    parallel: ParallelConfig
    """The split over GPUs."""
    precision: PrecisionConfig
    """Number formats."""
    optim: OptimConfig
    """Optimizer and schedule."""
    trainer: TrainerConfig
    """Length and extras of the training loop."""
    checkpoint: CheckpointConfig
    """Checkpoints."""
    logging: LoggingConfig
    """Metrics."""

    def check(self) -> None:
        """Raise `RecipeError` where two parts contradict each other."""
        if isinstance(self.data, LlavaDataConfig) and self.model.vision is None:
            raise RecipeError("data of class LlavaDataConfig needs model.vision and model.projector")
        if isinstance(self.data, TextDataConfig) and self.model.vision is not None:
            raise RecipeError(
                "data of class TextDataConfig needs a text-only model: set model.vision and model.projector to none"
            )
        parts = (self.model.language, self.model.vision, self.model.projector)
        if all(part is None or part.freeze for part in parts):
            raise RecipeError(
                "every part of the model is frozen: set model.language.freeze=false or model.projector.freeze=false"
            )
        if self.trainer.early_stopping_patience and not (self.checkpoint.monitor and self.data.validation_data_path):
            raise RecipeError("trainer.early_stopping_patience needs checkpoint.monitor and data.validation_data_path")
        if self.checkpoint.monitor == "val_loss" and not self.data.validation_data_path:
            raise RecipeError("checkpoint.monitor=val_loss needs data.validation_data_path")
        self._check_parallel()
        self.layout()

    def _check_parallel(self) -> None:
        language, parallel = self.model.language, self.parallel
        tensor, pipeline = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
        for field in ("num_attention_heads", "ffn_hidden_size"):
            if getattr(language, field) % tensor:
                raise RecipeError(
                    f"model.language.{field}={getattr(language, field)} is not a multiple of "
                    f"parallel.tensor_model_parallel_size={tensor}"
                )
        if language.num_query_groups % tensor and tensor % language.num_query_groups:
            raise RecipeError(
                f"model.language.num_query_groups={language.num_query_groups} and "
                f"parallel.tensor_model_parallel_size={tensor}: one must be a multiple of the other"
            )
        if language.num_layers % pipeline:
            raise RecipeError(
                f"model.language.num_layers={language.num_layers} is not a multiple of "
                f"parallel.pipeline_model_parallel_size={pipeline}"
            )
        if language.num_layers // pipeline < (self.model.recompute_num_layers or 0):
            raise RecipeError(
                f"model.recompute_num_layers={self.model.recompute_num_layers} is more than the "
                f"{language.num_layers // pipeline} layers of a pipeline stage"
            )
        if self.data.sequence_length > language.max_position_embeddings:
            raise RecipeError(
                f"data.sequence_length={self.data.sequence_length} is longer than "
                f"model.language.max_position_embeddings={language.max_position_embeddings}"
            )

    def layout(self) -> Layout:
        """Return how many processes the recipe needs and how they divide the batch.

        Raises:
            RecipeError: The processes or the batch cannot be divided as asked.
        """
        tensor, pipeline = self.parallel.tensor_model_parallel_size, self.parallel.pipeline_model_parallel_size
        nodes, model_size = self.trainer.num_nodes, tensor * pipeline
        devices = self.trainer.devices or -(-model_size // nodes)
        if nodes * devices % model_size:
            raise RecipeError(
                f"trainer.num_nodes={nodes} x trainer.devices={devices} = {nodes * devices} processes is not "
                f"a multiple of tensor {tensor} x pipeline {pipeline} = {model_size}"
            )
        replicas = nodes * devices // model_size
        micro, total = self.data.micro_batch_size, self.data.global_batch_size
        if total % (micro * replicas):
            raise RecipeError(
                f"data.global_batch_size={total} is not a multiple of data.micro_batch_size={micro} x {replicas} "
                f"replicas = {micro * replicas}"
            )
        return Layout(nodes, devices, replicas, total // (micro * replicas))
