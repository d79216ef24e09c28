"""The Lightning module: one optimizer step of a NeVA model through Megatron's schedules."""

import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.distributed import DistributedDataParallel
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import unwrap_model

from neva_model.checkpoints.average import average_shards
from neva_model.checkpoints.base import base_of
from neva_model.checkpoints.digest import weights_digest
from neva_model.checkpoints.distributed import load_sharded, sharding_metadata
from neva_model.checkpoints.information import BaseRecord, CheckpointInformation, SavedAdapters, read_information
from neva_model.checkpoints.vocabulary import check_same_vocabulary
from neva_model.data import Microbatch
from neva_model.failure import DivergedError, FailedTogether
from neva_model.model import IGNORE_INDEX, ModelChunks, build_chunks, own_positions
from neva_model.model.adapters import kept_shards
from neva_model.training.average import AverageWeights
from neva_model.training.failures import Failures
from neva_model.training.optimizer import OptimizerFacade, build_optimizer, wrap_data_parallel
from neva_model.training.random_states import random_states, set_random_states
from neva_model.training.validation import validation_metrics
from neva_recipes.config import CheckpointError, Recipe, TextDataConfig, format_value, listed_paths
from neva_recipes.plan.cost.schedule import learning_rate as scheduled_rate
from neva_recipes.storage.tensors import has_optimizer, has_random_states

__all__ = ["NevaTrainingModule"]


class NevaTrainingModule(pl.LightningModule):
    """Trains one rank's share of a model.

    Manual optimization: Megatron's schedule runs forward and backward of all micro batches of a step, reduces the
    gradients and divides them by the number of supervised tokens of the global batch.

    Attributes:
        consumed_samples: Training samples taken so far, over all ranks; part of every checkpoint.
        is_whole: Whether weights, optimizer and averages belong to the same step, so that they can be saved; False from
            the moment they begin to change until the step has ended.
    """

    def __init__(
        self,
        recipe: Recipe,
        recipe_yaml: str,
        max_steps: int,
        failures: Failures,
        *,
        resumed: SavedAdapters | None,
    ) -> None:
        """Store the recipe; `configure_model` builds the model once the process groups exist.

        Args:
            recipe: The recipe to train.
            recipe_yaml: The recipe as text, which every checkpoint contains.
            max_steps: Length of the run, and of the learning-rate schedule unless that has its own length.
            failures: Failures of this rank that end the run.
            resumed: The checkpoint of the run from which the weights will come; `None` for a new run.
        """
        super().__init__()
        self.automatic_optimization = False
        self.recipe = recipe
        self.recipe_yaml = recipe_yaml
        self.max_steps = max_steps
        self.consumed_samples = 0
        self.is_whole = True
        self._failures = failures
        self._resumed = resumed
        self.model: torch.nn.ModuleList | None = None
        self._step_ended: float | None = None
        self._validation_sums = torch.zeros(0, 2)
        self._loaded_metrics: dict[str, float] = {}
        self._base: dict[str, BaseRecord] = {}

    def configure_model(self) -> None:
        """Build this rank's part of the model on its device, ready for Megatron's gradient buffers."""
        if self.model is not None:
            return
        chunks = build_chunks(self.recipe)
        self._load_initial_weights(chunks)
        chunks.to(self.trainer.strategy.root_device)
        self.model = torch.nn.ModuleList(wrap_data_parallel(chunks, self.recipe))

    def _load_initial_weights(self, chunks: ModelChunks) -> None:
        model = self.recipe.model
        parts = (model.language, model.vision, model.projector)
        if not model.is_saved_in_part and (self._resumed or not any(part and part.source for part in parts)):
            return
        # Imported here because Hugging Face's libraries take seconds, which a run from scratch can save.
        from neva_model.checkpoints.pretrained import load_initial_weights

        tokenizer = self.trainer.datamodule.tokenizer
        for line in load_initial_weights(chunks, self.recipe, tokenizer, resumed=self._resumed):
            if self.global_rank == 0:
                print(line, flush=True)
        if model.is_saved_in_part and self.global_rank == 0:
            run = Path(self.trainer.default_root_dir)
            self._base = self._resumed.information.base if self._resumed else base_of(self.recipe, run)

    @property
    def neva(self) -> ModelChunks:
        """The model without its wrappers."""
        return ModelChunks(unwrap_model(self._chunks))

    @property
    def _chunks(self) -> list[DistributedDataParallel]:
        assert self.model is not None
        return list(self.model)

    def configure_optimizers(self) -> OptimizerFacade:
        """Make Megatron's optimizer over the trainable weights and connect it with the schedule."""
        optimizer = build_optimizer(self._chunks, self.recipe)
        return OptimizerFacade(optimizer, self.recipe.optim)

    @property
    def facade(self) -> OptimizerFacade:
        """The optimizer as Lightning sees it."""
        return self.trainer.optimizers[0]

    def training_step(self, batch: list[Microbatch], batch_index: int) -> None:
        """Take one optimizer step over this rank's micro batches and log its results."""
        if self._step_ended is None:
            self._step_ended = time.perf_counter()
        for chunk in self._chunks:
            chunk.zero_grad_buffer()
        self.facade.zero_grad()
        loss_sum, tokens = self._run_schedule(batch, forward_only=False)
        self._require_finite("the loss is", float(loss_sum), self.trainer.global_step + 1)
        learning_rate = scheduled_rate(self.trainer.global_step, self.recipe.optim, self.max_steps)
        self.facade.param_groups[0]["lr"] = learning_rate
        self.is_whole = False
        self.optimizers().step()
        self._require_finite("the gradient norm is", self.facade.grad_norm, self.trainer.global_step)
        if self._average is not None:
            self._gather_weights()
        self.consumed_samples += self.recipe.data.global_batch_size
        self._log_step(batch, loss_sum / tokens.clamp(min=1), learning_rate)

    def require_finite_weights(self) -> None:
        """Raise on all ranks if a trained weight is not finite; every rank must call this.

        Raises:
            DivergedError: There is such a weight.
        """
        trained = [parameter for parameter in self.neva.parameters() if parameter.requires_grad]
        finite = torch.stack([parameter.isfinite().all() for parameter in trained]).all() if trained else True
        wrong = torch.tensor(int(not finite), device=self.device)
        torch.distributed.all_reduce(wrong)
        if wrong:
            self._diverged("a weight is infinite or no number", self.trainer.global_step)

    def _require_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            self._diverged(f"{what} {value}", step)

    def _diverged(self, what: str, step: int) -> NoReturn:
        raise DivergedError(step, what, self.recipe.optim.lr, self.recipe.optim.clip_grad)

    def _run_schedule(self, batch: list[Microbatch], *, forward_only: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Run Megatron's schedule; return the summed loss and the number of supervised tokens of the global batch."""
        chunks = self._chunks
        # Every chunk iterates over the micro batches; only the interleaved schedule requires lists, all accept them.
        outputs = get_forward_backward_func()(
            forward_step_func=_forward_step,
            data_iterator=[iter(batch) for _ in chunks],
            model=chunks,
            num_microbatches=len(batch),
            seq_length=batch[0]["tokens"].shape[1],
            micro_batch_size=batch[0]["tokens"].shape[0],
            forward_only=forward_only,
        )
        total = torch.zeros(2, device=self.device)
        for output in outputs:
            total += output["loss_sum_and_tokens"]
        torch.distributed.all_reduce(total, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
        if parallel_state.get_pipeline_model_parallel_world_size() > 1:
            torch.distributed.broadcast(
                total,
                parallel_state.get_pipeline_model_parallel_last_rank(),
                group=parallel_state.get_pipeline_model_parallel_group(),
            )
        return total[0], total[1]

    def _log_step(self, batch: list[Microbatch], loss: torch.Tensor, learning_rate: float) -> None:
        now = time.perf_counter()
        assert self._step_ended is not None
        seconds, self._step_ended = now - self._step_ended, now
        data_parallel_size = parallel_state.get_data_parallel_world_size()
        tokens = sum(int(microbatch["num_tokens"]) for microbatch in batch) * data_parallel_size
        values = {
            "reduced_train_loss": float(loss),
            "lr": learning_rate,
            "grad_norm": self.facade.grad_norm,
            "step_time": seconds,
            "samples_per_second": self.recipe.data.global_batch_size / seconds,
            "tokens_per_second": tokens / seconds,
        }
        if self.device.type == "cuda":
            values["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            values["tflops_per_gpu"] = self._step_tflop(batch) * data_parallel_size / seconds / self.trainer.world_size
        self.log_dict(values, logger=False)
        step = self.trainer.global_step
        if step % self.trainer.log_every_n_steps == 0 or step == self.max_steps:
            # Lightning would leave out the last step, and write after the checkpoint: a kill in between would cost a
            # resumed run the row.
            for logger in self.trainer.loggers:
                logger.log_metrics(values, step - 1)

    def _step_tflop(self, batch: list[Microbatch]) -> float:
        from neva_recipes.plan.cost.flops import training_flops

        total = 0.0
        for microbatch in batch:
            rows, length = microbatch["tokens"].shape
            images = microbatch["images"].shape[0] if "images" in microbatch else 0
            total += training_flops(self.recipe.model, sequence_length=length, sequences=rows, images=images)
        return total / 1e12

    def on_validation_epoch_start(self) -> None:
        """Start a new sum, over the weights of the last step."""
        self._gather_weights()
        files = len(listed_paths(self.recipe.data.validation_data_path))
        self._validation_sums = torch.zeros(files, 2, device=self.device)

    def validation_step(self, batch: list[Microbatch], batch_index: int) -> None:
        """Add one global batch to the validation loss of its file."""
        self._failures.raise_together(self.device)
        loss_sum, tokens = self._run_schedule(batch, forward_only=True)
        self._validation_sums[self.trainer.datamodule.validation_files[batch_index]] += torch.stack([loss_sum, tokens])

    def on_validation_epoch_end(self) -> None:
        """Log the loss per supervised token over all validation files, and over each; this time counts for no step.

        Raises:
            FailedTogether: There is no supervised token, and so no loss.
        """
        loss_sum, tokens = self._validation_sums.sum(0)
        paths = listed_paths(self.recipe.data.validation_data_path)
        if not tokens:
            self._failures.raise_together(self.device)
            length = self.recipe.data.sequence_length
            raise FailedTogether(
                0,
                f"{format_value(self.recipe.data.validation_data_path)}: no sample of the validation has an answer in "
                f"its first {length} tokens: set data.sequence_length to more, or do without validation",
            )
        self._require_finite("the validation loss is", float(loss_sum), self.trainer.global_step)
        is_text = isinstance(self.recipe.data, TextDataConfig)
        self.log_dict(validation_metrics(self._validation_sums.tolist(), paths, is_text=is_text))
        self._step_ended = None

    def on_train_end(self) -> None:
        """Print a report on the data."""
        for line in self.trainer.datamodule.report():
            if self.global_rank == 0:
                print(line, flush=True)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Make the time of saving count for no step."""
        self._step_ended = None

    def sharded_state(self, *, is_loading: bool = False, has_average: bool = True) -> dict[str, Any]:
        """Return this rank's shards of the weights, the optimizer and the random states.

        Args:
            is_loading: Whether they are the destination of a load; then the facts about this moment are left out.
            has_average: Whether to include the averages; a checkpoint may have none to load.
        """
        if not is_loading:
            self._gather_weights()
        metadata = sharding_metadata()
        model = kept_shards(self.neva.sharded_state_dict(metadata=metadata), self.recipe.model)
        optimizer = self.facade.megatron_optimizer
        optimizer_state = optimizer.sharded_state_dict(model, is_loading=is_loading, metadata=metadata)
        if not is_loading and not optimizer_state.get("param_state", True):
            # On a pipeline stage where everything is frozen, Megatron would warn that the state differs from rank 0.
            del optimizer_state["param_state"]
        state = {"model": model, "optimizer": optimizer_state}
        if self._average is not None and has_average:
            state["average"] = average_shards(self.neva, self._average.averages)
        if not is_loading:
            state |= {
                "random": self._random_shard(),
                "information": self._information(),
                "recipe_yaml": self.recipe_yaml,
            }
        return state

    def load_sharded_state(self, checkpoint: str | Path) -> dict[str, Any]:
        """Load the state saved by `sharded_state`, possibly under another layout, and return Lightning's part of it.

        Raises:
            CheckpointError: The checkpoint is damaged or holds another model.
        """
        checkpoint = Path(checkpoint)
        information = read_information(checkpoint)
        check_same_vocabulary(checkpoint, information, self.recipe, self.trainer.datamodule.tokenizer)
        state = self.sharded_state(is_loading=True, has_average=information.has_average)
        if not has_optimizer(checkpoint):
            raise CheckpointError(
                f"{checkpoint}: has no optimizer, without which no run goes on: a new one can start from its weights, "
                "with model.language.from_pretrained and those of the other parts"
            )
        same_layout = all(getattr(information, name) == size for name, size in self._layout().items())
        has_own_states = same_layout and has_random_states(checkpoint)
        if has_own_states:
            state["random"] = self._random_shard()
        loaded = load_sharded(state, checkpoint)
        self.neva.load_state_dict(loaded["model"], strict=not self.recipe.model.is_saved_in_part)
        self.facade.load_megatron_state(loaded["optimizer"])
        if self._average is not None:
            # Averages that the checkpoint lacks start from the weights.
            self._average.load(self.neva, loaded["average"] if information.has_average else self.neva.state_dict())
        if has_own_states:
            set_random_states(loaded["random"])
        self.consumed_samples = information.consumed_samples
        self._loaded_metrics = information.metrics
        return loaded["lightning"]

    @property
    def _average(self) -> AverageWeights | None:
        return next((callback for callback in self.trainer.callbacks if isinstance(callback, AverageWeights)), None)

    def _gather_weights(self) -> None:
        """Update all weights, which overlap_param_gather leaves to the next step's forward pass."""
        if self.recipe.parallel.overlap_param_gather:
            for chunk in self._chunks:
                chunk.start_param_sync(force_sync=True)

    def _layout(self) -> dict[str, Any]:
        parallel = self.recipe.parallel
        return {
            "world_size": self.trainer.world_size,
            "tensor_model_parallel_size": parallel.tensor_model_parallel_size,
            "pipeline_model_parallel_size": parallel.pipeline_model_parallel_size,
            "context_parallel_size": parallel.context_parallel_size,
            "virtual_pipeline_model_parallel_size": parallel.virtual_pipeline_model_parallel_size or 1,
        }

    def _random_shard(self) -> ShardedObject:
        # Random states belong to a rank, so they are restored only under the layout that saved them.
        return ShardedObject("random", random_states(), (self.trainer.world_size,), (self.global_rank,))

    def _information(self) -> CheckpointInformation:
        projector = self.neva.projector
        logged = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        return CheckpointInformation(
            step=self.trainer.global_step,
            consumed_samples=self.consumed_samples,
            # A resumed run has not validated yet; the value of its last validation still ranks its checkpoints.
            metrics={**self._loaded_metrics, **logged},
            projector_digest=weights_digest(projector.state_dict()) if projector is not None else None,
            has_average=self.recipe.trainer.ema_decay is not None,
            vocabulary_digest=self.trainer.datamodule.tokenizer.vocabulary_digest(),
            base=self._base,
            **self._layout(),
        )


def _forward_step(
    batches: Iterator[Microbatch], model: torch.nn.Module
) -> tuple[torch.Tensor, partial[tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]]]:
    batch = next(batches)
    labels = own_positions(batch["labels"], 1)
    output = model(
        tokens=batch["tokens"],
        position_ids=batch["position_ids"],
        images=batch.get("images"),
        labels=labels,
    )
    return output, partial(_sum_loss, labels)


def _sum_loss(
    labels: torch.Tensor, token_loss: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss sum to differentiate, its number of tokens, and both for logging (Megatron's protocol)."""
    loss_sum = token_loss.float().sum()
    tokens = (labels != IGNORE_INDEX).sum()
    return loss_sum, tokens.int(), {"loss_sum_and_tokens": torch.stack([loss_sum.detach(), tokens.float()])}
