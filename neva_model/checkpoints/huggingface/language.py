"""Converts weights of a language model between Hugging Face's tensors and Core's, which are fused and cut."""

from dataclasses import dataclass

import torch

from neva_model.checkpoints.huggingface.files import WeightFiles
from neva_recipes.config import LanguageConfig
from neva_recipes.families import Layout, language_family
from neva_recipes.plan.huggingface import LanguageSpelling, core_weight

__all__ = ["LanguageReader", "split_parameter"]


@dataclass(frozen=True)
class LanguageReader:
    """Reads the shard that one tensor-parallel rank holds of each of Core's parameters.

    Attributes:
        files: The directory's tensors.
        spelling: How it names them.
        language: The recipe's language model.
        vocabulary_rows: Rows of the embedding in the directory.
        new_tokens: Tokens that the directory does not know although it may have rows for them. Like tokens beyond its
            last row, they start as the mean of the rows before the first of them.
        rank: Tensor-parallel rank.
        size: Number of tensor-parallel ranks.
    """

    files: WeightFiles
    spelling: LanguageSpelling
    language: LanguageConfig
    vocabulary_rows: int
    new_tokens: range
    rank: int
    size: int

    def read(self, name: str) -> torch.Tensor:
        """Return this rank's shard of a parameter.

        Args:
            name: Core's name, with layers counted over the whole model.

        Raises:
            CheckpointError: The file of a tensor is damaged.
        """
        weight, names = core_weight(language_family(self.language), name, self.spelling)
        match weight.layout:
            case Layout.WHOLE:
                return self.files.read(names[0])
            case Layout.STACKED:
                return torch.cat([self._rows(part) for part in names])
            case Layout.COLUMNS:
                return self._columns(names[0])
            case Layout.GROUPS:
                return self._read_groups(names)
            case Layout.VOCABULARY:
                return self._read_vocabulary(names[0])

    def _read_groups(self, names: tuple[str, ...]) -> torch.Tensor:
        groups = self.language.num_query_groups
        if groups % self.size == 0:
            return _interleave([self._rows(name) for name in names], groups // self.size)
        # With more ranks than groups, a rank's rows may begin inside a group.
        parts = [self.files.read(name) for name in names]
        return _interleave(parts, groups).chunk(self.size)[self.rank]

    @property
    def grown(self) -> range:
        """The tokens that start as the mean of the other tokens."""
        rows, size = self.vocabulary_rows, self.language.vocab_size
        first = min(rows, size)
        if not self.new_tokens:
            return range(first, size)
        return range(min(first, self.new_tokens.start), size if size > rows else self.new_tokens.stop)

    def _read_vocabulary(self, name: str) -> torch.Tensor:
        rows = self.language.padded_vocab_size(self.size) // self.size
        first, used = self.rank * rows, min(self.vocabulary_rows, self.language.vocab_size)
        found = self.files.read(name, slice(min(first, used), min(first + rows, used)))
        shard = found.new_zeros(rows, found.shape[1])
        shard[: found.shape[0]] = found
        new = slice(max(self.grown.start - first, 0), max(min(self.grown.stop - first, rows), 0))
        if new.start < new.stop:
            known = self.files.read(name, slice(0, self.grown.start))
            shard[new] = known.float().mean(dim=0).to(shard.dtype)
        return shard

    def _rows(self, name: str) -> torch.Tensor:
        share = self.files.shape(name)[0] // self.size
        return self.files.read(name, rows=slice(self.rank * share, (self.rank + 1) * share))

    def _columns(self, name: str) -> torch.Tensor:
        share = self.files.shape(name)[1] // self.size
        return self.files.read(name, columns=slice(self.rank * share, (self.rank + 1) * share))


def _interleave(parts: list[torch.Tensor], groups: int) -> torch.Tensor:
    """Interleave query, key and value rows by group: a group's queries, its key, its value.

    Args:
        parts: Their weights `[rows, hidden]`, or their biases `[rows]`.
        groups: Number of groups in them.
    """
    rest = parts[0].shape[1:]
    return torch.cat([part.view(groups, -1, *rest) for part in parts], dim=1).reshape(-1, *rest)


def split_parameter(name: str, weight: torch.Tensor, language: LanguageConfig) -> dict[str, torch.Tensor]:
    """Return the Hugging Face tensors of one whole parameter of Core, named as the family's class names them.

    Padding rows of the vocabulary are left out.

    Args:
        name: Core's name, with layers counted over the whole model.
        weight: The parameter of a model on one tensor-parallel rank.
        language: The recipe's language model.
    """
    declared, names = core_weight(language_family(language), name, LanguageSpelling("model.", ""))
    match declared.layout:
        case Layout.GROUPS:
            queries = language.num_attention_heads // language.num_query_groups
            per_group = weight.view(language.num_query_groups, queries + 2, language.head_size, *weight.shape[1:])
            parts = per_group.split([queries, 1, 1], dim=1)
            return {part: tensor.flatten(0, 2) for part, tensor in zip(names, parts, strict=True)}
        case Layout.STACKED:
            return dict(zip(names, weight.chunk(len(names)), strict=True))
        case Layout.VOCABULARY:
            return {names[0]: weight[: language.vocab_size]}
        case Layout.WHOLE | Layout.COLUMNS:
            return {names[0]: weight}
