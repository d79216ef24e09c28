"""Stages that give a language model the words of another language: tokenizers, and rows for their tokens."""

from typing import ClassVar, Literal

from neva_recipes.config import PathField, PathsField, Positive, config_dataclass, listed_paths
from neva_recipes.pipeline.tools import ModelTool, Tool

__all__ = ["ExtendVocabulary", "MergeTokenizers", "TrainTokenizer"]


@config_dataclass
class TrainTokenizer(Tool):
    """Trains a tokenizer on text, as `nemo-run tokenizer train` does."""

    module: ClassVar[str] = "neva_recipes.cli.commands.tokenizers.train"
    function: ClassVar[str] = "train_action"
    output: ClassVar[str] = "tokenizer"

    files: PathsField
    """Text: lines, or JSONL; one file or several."""
    vocab_size: Positive
    """Number of tokens, bytes and special tokens included."""
    kind: Literal["sentencepiece", "byte-level"] = "sentencepiece"
    """Kind of tokenizer, which must be that of the one it is merged with."""
    json_keys: str | None = None
    """Fields of JSONL that hold text, as title,text; None means text."""

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program; `output` is the directory it writes."""
        flags = [f"--vocab-size={self.vocab_size}", f"--kind={self.kind}"]
        flags += [] if self.json_keys is None else [f"--json-keys={self.json_keys}"]
        return [*flags, "--", *listed_paths(self.files), output]


@config_dataclass
class MergeTokenizers(Tool):
    """Writes a tokenizer with the tokens of another one behind its own, as `nemo-run tokenizer merge` does."""

    module: ClassVar[str] = "neva_recipes.cli.commands.tokenizers.merge"
    function: ClassVar[str] = "merge_action"
    output: ClassVar[str] = "tokenizer"

    base: PathField
    """Tokenizer of the model, whose tokens keep their ids."""
    new: PathField
    """Tokenizer of the new language."""

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program; `output` is the directory it writes."""
        return ["--", self.base, self.new, output]


@config_dataclass
class ExtendVocabulary(ModelTool):
    """Gives a language model a row for every token of another tokenizer, as `nemo-run extend-vocab` does."""

    module: ClassVar[str] = "neva_recipes.cli.commands.models.extend_vocab"
    function: ClassVar[str] = "extend_vocab_command"
    output: ClassVar[str] = "extended"

    tokenizer: PathField
    """The tokenizer with more tokens."""
    init: Literal["pieces", "mean", "zero"] = "pieces"
    """New rows: the mean of the rows of their pieces, the mean of all, or zeros."""
    rows: Positive | None = None
    """Least number of rows; None means one for each token."""

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program; `output` is the directory it writes."""
        rows = [] if self.rows is None else [f"--rows={self.rows}"]
        return [f"--tokenizer={self.tokenizer}", f"--init={self.init}", *rows, "--", self.model, output]
