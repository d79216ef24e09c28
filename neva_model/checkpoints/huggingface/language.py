"""Converts weights of a language model between Hugging Face's tensors and Core's, which are fused and cut."""

from dataclasses import dataclass
from functools import cached_property

import torch

from neva_model.checkpoints.huggingface.files import WeightFiles
from neva_recipes.config import LanguageConfig
from neva_recipes.families import Layout, Weight, language_family
from neva_recipes.families.language import LanguageFamily, sizes_of
from neva_recipes.families.tensors import Part
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
        parts = [(names[tensor], part) for tensor, part in zip(_numbers(weight), weight.parts, strict=True)]
        match weight.layout:
            case Layout.WHOLE:
                return self.files.read(names[0])
            case Layout.STACKED:
                return torch.cat([self._rows(weight, *part, self.rank, self.size) for part in parts])
            case Layout.COLUMNS:
                return self._columns(weight, names[0])
            case Layout.GROUPS:
                return self._read_groups(weight, parts)
            case Layout.VOCABULARY:
                return self._read_vocabulary(names[0])

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return sizes_of(self.language)

    def _read_groups(self, weight: Weight, parts: list[tuple[str, Part]]) -> torch.Tensor:
        groups = self.language.num_query_groups
        if groups % self.size == 0:
            own = [self._rows(weight, *part, self.rank, self.size) for part in parts]
            return _interleave(own, groups // self.size)
        # With more ranks than groups, a rank's rows may begin inside a group.
        whole = [self._rows(weight, *part, 0, 1) for part in parts]
        return _interleave(whole, groups).chunk(self.size)[self.rank]

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

    def _rows(self, weight: Weight, name: str, part: Part, index: int, number: int) -> torch.Tensor:
        """Return one of so many equal pieces of a part, as rows of Core's parameter.

        Args:
            weight: The parameter.
            name: The directory's name of the tensor that holds the part.
            part: The part.
            index: Which piece.
            number: How many pieces there are.
        """
        first, rows = part.place(self._sizes)
        share = rows // number
        piece = slice(first + index * share, first + (index + 1) * share)
        if weight.transposed:
            return self.files.read(name, columns=piece).t()
        return self.files.read(name, rows=piece)

    def _columns(self, weight: Weight, name: str) -> torch.Tensor:
        if self.size == 1 and not weight.transposed:
            return self.files.read(name)
        share = self.files.shape(name)[0 if weight.transposed else 1] // self.size
        piece = slice(self.rank * share, (self.rank + 1) * share)
        return self.files.read(name, rows=piece).t() if weight.transposed else self.files.read(name, columns=piece)


def _numbers(weight: Weight) -> list[int]:
    """Return for each part of a parameter which of its tensors holds it."""
    tensors = list(weight.tensors)
    return [tensors.index(part.tensor) for part in weight.parts]


def _interleave(parts: list[torch.Tensor], groups: int) -> torch.Tensor:
    """Interleave query, key and value rows by group: a group's queries, its key, its value.

    Args:
        parts: Their weights `[rows, hidden]`, or their biases `[rows]`.
        groups: Number of groups in them.
    """
    rest = parts[0].shape[1:]
    return torch.cat([part.reshape(groups, -1, *rest) for part in parts], dim=1).reshape(-1, *rest)


def split_parameter(
    name: str, weight: torch.Tensor, language: LanguageConfig, family: LanguageFamily, spelling: LanguageSpelling
) -> dict[str, torch.Tensor]:
    """Return the Hugging Face tensors of one whole parameter of Core.

    Padding rows of the vocabulary are left out.

    Args:
        name: Core's name, with layers counted over the whole model.
        weight: The parameter of a model on one tensor-parallel rank.
        language: The recipe's language model.
        family: The family whose tensors they are to be: its own, or that which it is exported as.
        spelling: How the tensors are to be named.
    """
    declared, names = core_weight(family, name, spelling)
    pieces: dict[int, list[torch.Tensor]] = {}
    for tensor, rows in zip(_numbers(declared), _split(declared, weight, language), strict=True):
        pieces.setdefault(tensor, []).append(rows)
    whole = {names[tensor]: torch.cat(rows) if len(rows) > 1 else rows[0] for tensor, rows in pieces.items()}
    return {name: tensor.t() for name, tensor in whole.items()} if declared.transposed else whole


def _split(declared: Weight, weight: torch.Tensor, language: LanguageConfig) -> list[torch.Tensor]:
    """Return the parts of one whole parameter of Core, each with all of its rows."""
    match declared.layout:
        case Layout.GROUPS:
            queries = language.num_attention_heads // language.num_query_groups
            per_group = weight.view(language.num_query_groups, queries + 2, language.head_size, *weight.shape[1:])
            return [part.flatten(0, 2) for part in per_group.split([queries, 1, 1], dim=1)]
        case Layout.STACKED:
            sizes = sizes_of(language)
            return list(weight.split([sizes[part.rows] for part in declared.parts]))
        case Layout.VOCABULARY:
            return [weight[: language.vocab_size]]
        case Layout.WHOLE | Layout.COLUMNS:
            return [weight]
