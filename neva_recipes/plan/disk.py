"""What a run writes to the disk: the size of a checkpoint, and the most checkpoints that exist at a time."""

from dataclasses import dataclass

from neva_recipes.config import Recipe
from neva_recipes.families import Layout as WeightLayout
from neva_recipes.families import adapters_of, language_family, layers_run, vision_family
from neva_recipes.plan.cost.layout import Layout
from neva_recipes.plan.cost.parameters import count_parameters, padding_parameters, vocabulary_tables
from neva_recipes.plan.cost.sizes import element_bytes

__all__ = ["DiskSpace", "disk_space"]

_TENSOR = 1950
"""Bytes that a tensor takes in the files besides its numbers: 1,577 for its own header, the rest in `.metadata`."""

_RANK, _REST = 35_500, 27_500
"""Bytes for the random state of each process, and for what a checkpoint holds once: recipe, record and empty FP8
states. Both were measured on checkpoints of torch 2 and Megatron-Core 0.16; those of 0.19 are as large to 0.02 %."""


@dataclass(frozen=True)
class DiskSpace:
    """The space that a run needs on the disk of its folder.

    Attributes:
        checkpoint: Bytes of a checkpoint.
        kept: The most checkpoints that exist between two steps; there is one more while it is written. `None` if all
            are kept and their number is unknown.
    """

    checkpoint: int
    kept: int | None

    @property
    def total(self) -> int | None:
        """The most bytes, including a checkpoint that is being written; `None` if unknown."""
        return None if self.kept is None else (self.kept + 1) * self.checkpoint if self.kept else 0


def disk_space(recipe: Recipe, layout: Layout, steps: int | None) -> DiskSpace:
    """Return the disk space that a run needs.

    A checkpoint holds all weights in the training precision, including frozen ones and the padding of the vocabulary;
    with adapters only the parts that are trained.
    For each trained weight it also holds both moments in fp32, the weight in fp32 (with bf16 or the distributed
    optimizer) and the moving average in fp32. It holds every tensor once, however many replicas there are.

    Args:
        recipe: A recipe without errors.
        layout: Its layout.
        steps: Steps of the run; `None` if unknown.
    """
    parts, padding = count_parameters(recipe), padding_parameters(recipe)
    padding = padding if recipe.model.language.trains_weights or not recipe.model.is_saved_in_part else 0
    total = sum(part.total if _is_held(recipe, part.part) else part.trained for part in parts) + padding
    trained = sum(part.trained for part in parts) + (padding if recipe.model.language.trains_weights else 0)
    has_masters = recipe.precision.precision == "bf16" or recipe.parallel.use_distributed_optimizer
    copies = 2 + has_masters + (recipe.trainer.ema_decay is not None)
    tensors, trained_tensors = _tensors(recipe)
    size = total * element_bytes(recipe) + 4 * copies * trained
    size += _TENSOR * (tensors + copies * trained_tensors) + _RANK * layout.world_size + _REST
    return DiskSpace(size, _kept(recipe, steps))


def _is_held(recipe: Recipe, part: str) -> bool:
    """Return whether a checkpoint holds the own weights of a part."""
    return not recipe.model.is_saved_in_part or getattr(recipe.model, part).trains_weights


def _tensors(recipe: Recipe) -> tuple[int, int]:
    """Return how many tensors of the model a checkpoint holds, and how many of them are trained."""
    language, vision, projector = recipe.model.language, recipe.model.vision, recipe.model.projector
    shards = recipe.parallel.tensor_model_parallel_size
    tables, family = vocabulary_tables(language), language_family(language)
    count = language.num_layers * family.layer_tensors(shards) + tables * shards + len(family.body) - 1
    trained = count if language.trains_weights else 0
    held = count if _is_held(recipe, "language") else 0
    if vision is not None and projector is not None:
        tower = vision_family(vision)
        before, layer = len(tower.before), len(tower.layer)
        if _is_held(recipe, "vision"):
            held += before + layer * vision.num_layers + len(tower.after)
        held += 2 * projector.num_layers if _is_held(recipe, "projector") else 0
        trained += before + layer * layers_run(vision) if vision.trains_weights else 0
        trained += 0 if projector.freeze else 2 * projector.num_layers
    adapters = _adapter_tensors(recipe, "language", shards) + _adapter_tensors(recipe, "vision", 1)
    return held + adapters, trained + adapters


def _adapter_tensors(recipe: Recipe, part: str, shards: int) -> int:
    """Return in how many tensors a checkpoint holds the adapters of a part; each rank writes its share as one."""
    count = 0
    for _, site in adapters_of(recipe.model, part):
        config = recipe.model.language if part == "language" else recipe.model.vision
        is_dora = config is not None and config.lora is not None and config.lora.kind == "dora"
        columns, rows = (shards, 1) if site.layout is WeightLayout.COLUMNS else (1, shards)
        count += columns + len(site.rows) * rows * (1 + is_dora)
    return count


def _kept(recipe: Recipe, steps: int | None) -> int | None:
    """Return the most checkpoints that exist at a time, from what the worker keeps and how many it writes at all."""
    config, validates = recipe.checkpoint, recipe.data.validation_data_path is not None
    written = _written(recipe, steps)
    if config.save_top_k == -1:
        return written
    kept = config.save_top_k
    # Without a monitor the newest checkpoints are kept anyway.
    kept += config.save_last and (config.monitor is not None or not config.save_top_k)
    best = config.keeps_best and validates
    if not config.save_top_k and not config.save_last and written != 0:
        return 1  # it is written, and deleted with the next step
    return (kept if written is None else min(kept, written)) + best


def _written(recipe: Recipe, steps: int | None) -> int | None:
    """Return how many checkpoints a run writes without a validation asking for it; `None` if unknown."""
    config = recipe.checkpoint
    if config.train_time_interval_minutes is not None:
        return None
    last = bool(config.save_last or config.save_top_k)
    if config.every_n_train_steps is None:
        return int(last)
    if steps is None:
        return None
    regular, rest = divmod(steps, config.every_n_train_steps)
    return regular + (last and rest > 0)
