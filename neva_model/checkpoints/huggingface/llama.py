"""Weights of a Llama model: between separate Hugging Face tensors and the fused, tensor-parallel ones of Core."""

from dataclasses import dataclass

import torch

from neva_model.checkpoints.huggingface.files import WeightFiles
from neva_model.checkpoints.huggingface.names import LanguageSpelling, llama_names
from neva_recipes.config import LanguageConfig

__all__ = ["LlamaReader", "split_parameter"]


@dataclass(frozen=True)
class LlamaReader:
    """Reads the shard that one tensor-parallel rank holds of each of Core's parameters.

    Attributes:
        files: The directory's tensors.
        spelling: How it names them.
        language: The recipe's language model.
        vocabulary_rows: Rows of the embedding in the directory.
        used_rows: How many of them are tokens of the recipe; the recipe's further tokens get the mean of these.
        rank: Tensor-parallel rank.
        size: Number of tensor-parallel ranks.
    """

    files: WeightFiles
    spelling: LanguageSpelling
    language: LanguageConfig
    vocabulary_rows: int
    used_rows: int
    rank: int
    size: int

    def read(self, name: str) -> torch.Tensor:
        """Return this rank's shard of a parameter.

        Args:
            name: Core's name, with layers counted over the whole model.

        Raises:
            CheckpointError: A tensor is missing, of another shape, or its file is damaged.
        """
        names = llama_names(name, self.spelling)
        hidden, ffn = self.language.hidden_size, self.language.ffn_hidden_size
        attention = self.language.num_attention_heads * self.language.head_size
        if name.endswith(("norm.weight", "norm_weight")):
            return self.files.read(names[0], (hidden,))
        if name.endswith("linear_qkv.weight"):
            return self._read_qkv(names, attention)
        if name.endswith("linear_fc1.weight"):
            return torch.cat([self._rows(part, (ffn, hidden)) for part in names])
        if name.endswith("linear_proj.weight"):
            return self._columns(names[0], (hidden, attention))
        if name.endswith("linear_fc2.weight"):
            return self._columns(names[0], (hidden, ffn))
        return self._read_vocabulary(names[0])

    def _read_qkv(self, names: tuple[str, ...], attention: int) -> torch.Tensor:
        hidden, groups = self.language.hidden_size, self.language.num_query_groups
        keys = groups * self.language.head_size
        shapes = ((attention, hidden), (keys, hidden), (keys, hidden))
        if groups % self.size == 0:
            parts = [self._rows(name, shape) for name, shape in zip(names, shapes, strict=True)]
            return _interleave(parts, groups // self.size)
        # More ranks than groups: a rank's rows may begin inside a group.
        parts = [self.files.read(name, shape) for name, shape in zip(names, shapes, strict=True)]
        return _interleave(parts, groups).chunk(self.size)[self.rank]

    def _read_vocabulary(self, name: str) -> torch.Tensor:
        hidden = self.language.hidden_size
        shape = (self.vocabulary_rows, hidden)
        rows = self.language.padded_vocab_size(self.size) // self.size
        first = self.rank * rows
        found = self.files.read(name, shape, slice(min(first, self.used_rows), min(first + rows, self.used_rows)))
        shard = found.new_zeros(rows, hidden)
        shard[: found.shape[0]] = found
        new = slice(max(self.used_rows - first, 0), max(min(self.language.vocab_size - first, rows), 0))
        if new.start < new.stop:
            known = self.files.read(name, shape, slice(0, self.used_rows))
            shard[new] = known.float().mean(dim=0).to(shard.dtype)
        return shard

    def _rows(self, name: str, shape: tuple[int, int]) -> torch.Tensor:
        share = shape[0] // self.size
        return self.files.read(name, shape, rows=slice(self.rank * share, (self.rank + 1) * share))

    def _columns(self, name: str, shape: tuple[int, int]) -> torch.Tensor:
        share = shape[1] // self.size
        return self.files.read(name, shape, columns=slice(self.rank * share, (self.rank + 1) * share))


def _interleave(parts: list[torch.Tensor], groups: int) -> torch.Tensor:
    """Put query, key and value rows together group by group: a group's queries, its key, its value."""
    width = parts[0].shape[-1]
    return torch.cat([part.view(groups, -1, width) for part in parts], dim=1).reshape(-1, width)


def split_parameter(name: str, weight: torch.Tensor, language: LanguageConfig) -> dict[str, torch.Tensor]:
    """Return the Hugging Face tensors of one whole parameter of Core, named as `LlamaForCausalLM` does.

    Padding rows of the vocabulary are left out.

    Args:
        name: Core's name, with layers counted over the whole model.
        weight: The parameter of a model on one tensor-parallel rank.
        language: The recipe's language model.
    """
    names = llama_names(name, LanguageSpelling("model.", "lm_head.weight"))
    if name.endswith("linear_qkv.weight"):
        queries = language.num_attention_heads // language.num_query_groups
        per_group = weight.view(language.num_query_groups, queries + 2, language.head_size, -1)
        parts = per_group.split([queries, 1, 1], dim=1)
        return {part: tensor.flatten(0, 2) for part, tensor in zip(names, parts, strict=True)}
    if name.endswith("linear_fc1.weight"):
        return dict(zip(names, weight.chunk(2), strict=True))
    if name in ("embedding.word_embeddings.weight", "output_layer.weight"):
        return {names[0]: weight[: language.vocab_size]}
    return {names[0]: weight}
