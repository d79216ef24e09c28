"""What became of the tokens of a tokenizer that was merged into another one."""

from dataclasses import dataclass

__all__ = ["Union"]


@dataclass(frozen=True)
class Union:
    """What became of the tokens of a tokenizer that was merged into another one.

    Attributes:
        base_size: One more than the largest id of the base.
        added: The new tokens, in the order of their ids, which follow those of the base.
        duplicates: Number of tokens that the base had already.
        unproducible: Tokens that were left out because no text becomes them: merges of the base come first, or its
            pre-tokenizer cuts through them.
        not_taken: Special tokens that only the other one had.
        whole_not_taken: Tokens that only the other one had and that texts keep whole, such as user-defined pieces.
        differences: Settings in which they differ, of which the base's are kept.
    """

    base_size: int
    added: tuple[str, ...]
    duplicates: int
    unproducible: tuple[str, ...]
    not_taken: tuple[str, ...]
    whole_not_taken: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def size(self) -> int:
        """One more than the largest id of both together."""
        return self.base_size + len(self.added)
