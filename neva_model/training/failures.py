"""Failures of one rank, kept until all ranks can end together with their work saved."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from neva_model.causes import explain
from neva_model.failure import FailedTogether
from neva_recipes.config import UserError

__all__ = ["Failures", "GuardedLoader", "SizedGuardedLoader"]


class Failures:
    """Keeps the first failure of this rank until the ranks ask each other for failures.

    A rank that raised at once would leave the other ranks waiting in a collective, and nothing could be saved.
    """

    def __init__(self) -> None:
        self._message: str | None = None

    @property
    def is_pending(self) -> bool:
        """Whether this rank has met a failure."""
        return self._message is not None

    def note(self, error: UserError) -> None:
        """Keep the failure, unless there already is one."""
        if self._message is None:
            self._message = str(error)

    def guarded(self, function: Callable[..., object], what: str) -> Callable[..., Any]:
        """Return a function that calls another one, keeps its error and then returns `None`.

        Args:
            function: A function that training can do without for a step.
            what: What fails, for the message.
        """

        def call(*positional: object, **named: object) -> Any:
            try:
                return function(*positional, **named)
            except Exception as error:  # noqa: BLE001 loggers are third-party code that may raise anything
                self.note(error if isinstance(error, UserError) else UserError(f"{what}: {_reason(error)}"))
                return None

        return call

    def raise_together(self, device: torch.device) -> None:
        """Raise on all ranks if one of them has met a failure; every rank must call this.

        Raises:
            FailedTogether: With the message of the first rank that has one.
        """
        pending = torch.tensor(int(self.is_pending), device=device)
        torch.distributed.all_reduce(pending)
        if pending:
            self.raise_first()

    def raise_first(self) -> None:
        """Raise the failure of the first rank that has met one; all ranks must know that there is one.

        Raises:
            FailedTogether: Always.
        """
        messages: list[str | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(messages, self._message)
        raise next(FailedTogether(rank, message) for rank, message in enumerate(messages) if message is not None)


class GuardedLoader(Iterable[Any]):
    """A loader that defers errors: in place of the batch that fails, it yields an empty batch, the last one."""

    def __init__(self, loader: Iterable[object], failures: Failures) -> None:
        self._loader = loader
        self._failures = failures

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches."""
        try:
            yield from self._loader
        except Exception as error:
            cause = explain(error)
            if cause is None and not isinstance(error, UserError):
                raise
            self._failures.note(error if isinstance(error, UserError) else UserError(_reason(error)))
            yield []


class SizedGuardedLoader(GuardedLoader):
    """A guarded loader with a known number of batches."""

    def __init__(self, loader: Any, failures: Failures) -> None:
        super().__init__(loader, failures)
        self._size = len(loader)

    def __len__(self) -> int:
        return self._size


def _reason(error: Exception) -> str:
    cause = explain(error)
    return cause.message if cause is not None else " ".join(f"{type(error).__name__}: {error}".split())[:300]
