"""How the model is trained: layout over GPUs, precision, optimizer, trainer, checkpoints and logging."""

from dataclasses import field
from typing import Annotated, Literal

from neva_recipes.config.values.node import (
    ConfigNode,
    Matches,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Range,
    config_dataclass,
)

__all__ = [
    "CheckpointConfig",
    "LoggingConfig",
    "OptimConfig",
    "ParallelConfig",
    "PrecisionConfig",
    "TrainerConfig",
]

_Weights = Annotated[
    str,
    Matches(
        r"(language|vision|projector)(\..+)?",
        "language, vision or projector, or one of them, a dot and a pattern of the names of its weights",
    ),
]

Fraction = Annotated[float, Range(minimum=0, maximum=1)]


@config_dataclass
class ParallelConfig(ConfigNode):
    """How the model is split over GPUs; what is left of them is data parallelism."""

    tensor_model_parallel_size: Positive = 1
    """GPUs that share every layer."""
    pipeline_model_parallel_size: Positive = 1
    """GPUs, or groups of them, that hold consecutive layers."""
    virtual_pipeline_model_parallel_size: Positive | None = None
    """Pieces of the model that each pipeline stage holds, to shorten the bubble; None means one piece."""
    num_layers_in_first_pipeline_stage: Positive | None = None
    """Layers of the first stage where they are not divided evenly; the other stages share the rest."""
    num_layers_in_last_pipeline_stage: Positive | None = None
    """Layers of the last stage where they are not divided evenly; the other stages share the rest."""
    context_parallel_size: Positive = 1
    """GPUs that share every sequence, each holding part of its positions in all layers."""
    cp_comm_type: Literal["p2p", "all_gather", "a2a"] = "p2p"
    """How attention reaches the positions of the other context-parallel GPUs."""
    sequence_parallel: bool = False
    """Split norms and residuals along the sequence over the tensor-parallel GPUs."""
    use_distributed_optimizer: bool = True
    """Shard the optimizer state over the data-parallel GPUs."""
    overlap_grad_reduce: bool = False
    """Reduce gradients while the backward pass goes on."""
    overlap_param_gather: bool = False
    """Gather updated weights while the forward pass goes on (distributed optimizer with overlap_grad_reduce)."""


@config_dataclass
class PrecisionConfig(ConfigNode):
    """Number formats of weights, matrix products and gradient sums."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """Format of weights and activations; the optimizer keeps fp32 master weights with bf16."""
    grad_reduce_in_fp32: bool = True
    """Accumulate and reduce gradients in fp32."""
    fp8: Literal["hybrid", "e4m3"] | None = None
    """FP8 format of the language model's linear layers (Transformer Engine, Hopper or newer); None means off."""
    fp8_recipe: Literal["delayed", "tensorwise", "blockwise", "mxfp8"] = "delayed"
    """How FP8 scales are chosen; blockwise needs Hopper, mxfp8 needs Blackwell."""
    fp8_amax_history_len: Positive = 1024
    """Length of the amax history (delayed only)."""
    fp8_amax_compute_algo: Literal["max", "most_recent"] = "max"
    """How the amax history becomes a scale (delayed only)."""
    fp8_margin: NonNegative = 0
    """Powers of two that scales keep away from the largest number of the format (delayed only)."""
    fp8_param: bool = False
    """Keep the weights themselves in FP8."""
    first_last_layers_bf16: bool = False
    """Keep the first and last layers of the language model in bf16 (not with delayed)."""
    num_layers_at_start_in_bf16: NonNegative = 1
    """First layers kept in bf16, used with first_last_layers_bf16."""
    num_layers_at_end_in_bf16: NonNegative = 1
    """Last layers kept in bf16, used with first_last_layers_bf16."""


@config_dataclass
class OptimConfig(ConfigNode):
    """AdamW and its learning-rate schedule."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    min_lr: NonNegativeFloat = 0.0
    """Learning rate at the end of the schedule."""
    lr_decay_style: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the schedule after warm-up."""
    lr_decay_steps: Positive | None = None
    """Steps, warm-up included, after which min_lr is reached and stays; None means all steps of the run."""
    warmup_steps: NonNegative | None = None
    """Steps of linear warm-up from zero; None means warmup_ratio decides."""
    warmup_ratio: Fraction | None = 0.03
    """Share of the schedule spent warming up, rounded up; used when warmup_steps is None."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay; not applied to biases and norms."""
    adam_beta1: Fraction = 0.9
    """Decay of the first moment."""
    adam_beta2: Fraction = 0.999
    """Decay of the second moment."""
    adam_eps: PositiveFloat = 1e-8
    """Term that keeps the denominator from zero."""
    clip_grad: NonNegativeFloat = 1.0
    """Largest global gradient norm; 0 turns clipping off."""
    lr_of: dict[_Weights, PositiveFloat] = field(default_factory=dict)
    """Peak learning rates of some weights, by their names: projector, or vision.encoder.layers.0.*, where * stands for
    anything; the last that fits counts. All follow the one schedule."""


@config_dataclass
class TrainerConfig(ConfigNode):
    """How long, on what, and with which extras the loop runs."""

    accelerator: Literal["auto", "gpu", "cpu"] = "auto"
    """Device to train on; auto takes GPUs where there are any."""
    num_nodes: Positive = 1
    """Machines."""
    devices: Positive | None = None
    """Processes per machine, one per GPU; None means as many as tensor and pipeline parallelism need."""
    max_steps: Positive | None = None
    """Optimizer steps; None means max_epochs decides."""
    max_epochs: Positive | None = None
    """Passes over the data, counted in steps rounded up; used when max_steps is None."""
    val_check_interval: Positive | None = None
    """Steps between validations; None validates at the end only."""
    val_before_training: bool = False
    """Validate once before the first step, so that what training changes can be compared with it."""
    limit_val_batches: Positive | None = None
    """Global batches per validation; None means the whole validation file."""
    log_every_n_steps: Positive = 10
    """Steps between two logged points."""
    seed: NonNegative = 1234
    """Seed of initialisation, data order and dropout."""
    early_stopping_patience: Positive | None = None
    """Validations without improvement of checkpoint.monitor after which training stops; None never stops early."""
    ema_decay: Annotated[float, Range(minimum=0, maximum=1)] | None = None
    """Decay of an exponential moving average of the weights; None keeps no average."""
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    """Lightning profiler whose report is written to the run directory."""
    enable_progress_bar: bool = True
    """Show a progress bar in rank 0's log."""


@config_dataclass
class CheckpointConfig(ConfigNode):
    """When checkpoints are written and which are kept."""

    every_n_train_steps: Positive | None = None
    """Steps between checkpoints."""
    train_time_interval_minutes: PositiveFloat | None = None
    """Minutes between checkpoints, beside or instead of steps."""
    save_top_k: Annotated[int, Range(minimum=-1)] = 1
    """Checkpoints to keep, best first by monitor, newest first without one; -1 keeps all, 0 none but the last."""
    save_last: bool = True
    """Always keep the newest too; a finished run's last checkpoint is its result."""
    monitor: Literal["val_loss", "reduced_train_loss"] | None = None
    """Logged metric that ranks checkpoints; None ranks by step, and keeps the one of the lowest val_loss besides."""
    mode: Literal["min", "max"] = "min"
    """Whether a small or a large value of monitor is better."""

    @property
    def keeps_best(self) -> bool:
        """Whether the checkpoint of the lowest val_loss is kept besides those that are ranked by step."""
        return self.monitor is None and self.save_top_k > 0


@config_dataclass
class LoggingConfig(ConfigNode):
    """Where metrics go beside TensorBoard and CSV, which are always written to the run directory."""

    wandb_project: str | None = None
    """Weights & Biases project; None means it is not used."""
    wandb_entity: str | None = None
    """Weights & Biases team or user."""
