"""An exponential moving average of the trainable weights, kept by Lightning's weight averaging."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["AverageWeights"]


class _TrainableCopy(nn.Module):
    """Copies of the trainable parameters, in the order of the model, in fp32, which does not lose small updates."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self.copies = nn.ParameterList(
            [nn.Parameter(p.detach().float().clone(), requires_grad=False) for p in parameters]
        )


class _TrainableView(nn.Module):
    """The trainable parameters of a model as a module of their own; copying it copies them in fp32.

    Lightning deep-copies the module that it averages. Process groups cannot be copied, and frozen weights need not be.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def parameters(self, recurse: bool = True) -> Any:
        return iter(self._trainable)

    def __deepcopy__(self, memo: dict[int, object]) -> _TrainableCopy:
        return _TrainableCopy(self._trainable)


class AverageWeights(EMAWeightAveraging):
    """Lightning's EMA over the trainable weights of this rank.

    Validation uses the averaged weights; training goes on with its own weights. Every checkpoint holds both, and
    inference and export use the averaged ones.
    """

    def __init__(self, decay: float) -> None:
        """Average with `decay` after every step."""
        super().__init__(decay=decay, use_buffers=False)
        self._view: _TrainableView | None = None
        self._current: list[torch.Tensor] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Do nothing: the weights do not exist yet."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the average from the initial weights."""
        self._view = _TrainableView(pl_module.neva)
        self._average_model = AveragedModel(self._view, use_buffers=False, **self._kwargs)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Move the average towards the weights after this step."""
        super().on_train_batch_end(trainer, self._view, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do nothing: the average follows steps."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do nothing: the last checkpoint holds both sets of weights."""

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate with the averaged weights."""
        assert self._view is not None
        self._current = [parameter.detach().clone() for parameter in self._view.parameters()]
        with torch.no_grad():
            for parameter, average in zip(self._view.parameters(), self.averages, strict=True):
                parameter.copy_(average)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the exact weights for further training."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the weights if the validation has failed, so that they can be saved."""
        if self._current:
            self._restore()

    def _restore(self) -> None:
        assert self._view is not None
        with torch.no_grad():
            for parameter, current in zip(self._view.parameters(), self._current, strict=True):
                parameter.copy_(current)
        self._current = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Do nothing: the averages are saved sharded, with the weights."""

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Do nothing: the averages are loaded sharded, with the weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the average apart from its tensors."""
        assert self._average_model is not None
        return {**super().state_dict(), "n_averaged": int(self._average_model.n_averaged)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state returned by `state_dict`."""
        super().load_state_dict(state_dict)
        assert self._average_model is not None
        self._average_model.n_averaged.fill_(state_dict["n_averaged"])

    @property
    def averages(self) -> list[torch.Tensor]:
        """The averaged tensors, in the order of the model's trainable parameters."""
        assert self._average_model is not None
        return list(self._average_model.module.parameters())

    def load(self, model: nn.Module, averages: dict[str, torch.Tensor]) -> None:
        """Take averaged weights from a checkpoint.

        Args:
            model: The model they are averages of.
            averages: The averages, by the names of the model's weights.
        """
        trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        with torch.no_grad():
            for name, average in zip(trainable, self.averages, strict=True):
                average.copy_(averages[name])
