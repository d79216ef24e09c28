"""Stages for language models on text: indexed datasets, continuations of prompts, and the report of `gpt.localize`."""

from typing import ClassVar

from neva_recipes.config import (
    OptionalPathField,
    PathField,
    PathsField,
    Positive,
    config_dataclass,
    listed_paths,
)
from neva_recipes.pipeline.tools import ModelTool, Tool

__all__ = ["Generate", "LocalizationReport", "TokenizeText"]


@config_dataclass
class TokenizeText(Tool):
    """Writes text as Megatron's indexed datasets, as `nemo-run data text` does."""

    module: ClassVar[str] = "neva_recipes.cli.commands.data.text"
    function: ClassVar[str] = "text_action"
    output: ClassVar[str] = "text"

    files: PathsField
    """Text: lines, JSONL or parquet; one file or several."""
    tokenizer: PathField
    """Tokenizer of the model that will be trained on it."""
    json_keys: str | None = None
    """Fields of JSONL and parquet that hold text, as title,text; None means text."""
    append_eod: bool = True
    """Put the tokenizer's end token behind each document."""
    split: str = "98,2"
    """Weights of train, validation and test, by which documents are divided."""
    workers: Positive = 1
    """Processes."""

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program; `output` is the folder it writes."""
        flags = [f"--tokenizer={self.tokenizer}", f"--split={self.split}", f"--workers={self.workers}"]
        flags += ["--append-eod"] if self.append_eod else []
        flags += [] if self.json_keys is None else [f"--json-keys={self.json_keys}"]
        return [*flags, "--", *listed_paths(self.files), output]


@config_dataclass
class Generate(ModelTool):
    """Continues prompts, as `nemo-run generate` does."""

    module: ClassVar[str] = "neva_model.inference.texts"
    can_use_gpu: ClassVar[bool] = True
    output: ClassVar[str] = "texts.jsonl"

    prompts: PathField
    """Prompts: a text with one on each line, or JSONL with a field `prompt`."""
    max_new_tokens: Positive = 100
    """Longest continuation, in tokens."""

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program; `output` is the file it writes."""
        flags = [f"--prompts={self.prompts}", f"--max-new-tokens={self.max_new_tokens}", f"--output={output}"]
        return [*flags, "--", self.model]


@config_dataclass
class LocalizationReport(Tool):
    """A table of what a model was before it learnt a language, and what it is now."""

    module: ClassVar[str] = "neva_recipes.localization.report"
    output: ClassVar[str] = "report.txt"

    tokenizer_before: PathField
    """Tokenizer before the merge."""
    tokenizer_after: PathField
    """Tokenizer after it."""
    new_text: PathsField
    """Text of the new language."""
    old_text: PathsField
    """Text of what the model knew."""
    json_keys: str | None = None
    """Fields of JSONL that hold text, as title,text; None means text."""
    run: PathField
    """The run that has learnt the new language."""
    written_before: OptionalPathField = None  # type: ignore[assignment]
    """What the model wrote before, if prompts were given."""
    written_after: OptionalPathField = None  # type: ignore[assignment]
    """What it writes now."""

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program; `output` is the file it writes."""
        flags = {
            "tokenizer-before": [self.tokenizer_before],
            "tokenizer-after": [self.tokenizer_after],
            "new-text": listed_paths(self.new_text),
            "old-text": listed_paths(self.old_text),
            "json-keys": listed_paths(self.json_keys and [self.json_keys]),
            "run": [self.run],
            "written-before": listed_paths(self.written_before),
            "written-after": listed_paths(self.written_after),
        }
        return [*(f"--{name}={value}" for name, values in flags.items() for value in values), "--", output]
