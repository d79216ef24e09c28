"""Converts a model on the disk: nothing is built, and one weight at a time is in memory.

What needs Megatron-Core or transformers is imported where it is needed: a directory is converted to a checkpoint, and
back, in less time than their imports take.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch

from neva_model.checkpoints.converting.checkpoint import write_converted
from neva_model.checkpoints.converting.kept import Kept, folders_left, read_kept, write_again
from neva_model.checkpoints.huggingface import is_huggingface_directory
from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface
from neva_model.checkpoints.information import read_information, saved_recipe, with_newest
from neva_model.checkpoints.weights import CheckpointWeights, DirectoryWeights, Weights
from neva_model.startup import prepare_process
from neva_recipes.config import CheckpointError, LlavaDataConfig, Recipe, tokenizer_name
from neva_recipes.plan.huggingface import Directory, open_directory
from neva_recipes.run_directory.names import DESCRIPTIONS
from neva_recipes.storage.exports import exported_training, require_new_directory
from neva_recipes.storage.whole import reading_errors, written_whole
from neva_recipes.terminal import tell

__all__ = ["Converted", "Layout", "convert"]

Layout = Literal["megatron", "transformers", "original", "projector", "peft"]


@dataclass(frozen=True)
class Converted:
    """What has been written.

    Attributes:
        source: The checkpoint or directory that it was made of.
        layout: The layout that it has.
        difference: The largest difference between the logits of both, and the largest logit; `None` if they were not
            compared.
    """

    source: Path
    layout: Layout
    difference: tuple[float, float] | None


@dataclass(frozen=True)
class _Source:
    """A model that is converted.

    Attributes:
        path: The checkpoint or directory.
        recipe: Its recipe, or one made from the directory.
        weights: Its weights.
        opened: The directory; `None` for a checkpoint.
        kept: What a converted checkpoint has kept; `None` for others.
    """

    path: Path
    recipe: Recipe
    weights: Weights
    opened: Directory | None = None
    kept: Kept | None = None

    @property
    def layout(self) -> Layout:
        """The layout that it has."""
        if self.opened is None:
            return "megatron"
        told = self.opened.configuration
        return "original" if told is not None and told.is_original else "transformers"

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of what is exported; `None` for that of each weight."""
        if self.opened is not None or self.kept is not None:
            return None
        # Averaged weights are kept in fp32.
        return torch.bfloat16 if self.recipe.precision.precision == "bf16" else torch.float32


def convert(
    source: Path,
    target: Path,
    layout: Layout | None = None,
    *,
    tokenizer: str | None = None,
    verify: bool = False,
) -> Converted:
    """Write a model in another layout. The target gets its name only when it is complete.

    Args:
        source: A run, a checkpoint, or a Hugging Face directory.
        target: The directory to write; must not exist yet.
        layout: The layout of the target; `None` means Megatron's for a directory, that of transformers for others.
        tokenizer: Where the tokenizer of a run is now; `None` means where it was in training.
        verify: Compare the logits of both before the target gets its name.

    Raises:
        UserError: The source cannot be read, the target cannot be written, or the layout cannot hold the model.
    """
    require_new_directory(target)
    if is_huggingface_directory(source):
        if tokenizer is not None:
            raise CheckpointError(f"--tokenizer={tokenizer}: {source} is a Hugging Face directory, which has its own")
        return _convert(_directory(source), target, layout or "megatron", verify=verify)
    return with_newest(
        source,
        lambda found: _convert(
            _checkpoint(found, tokenizer, layout or "transformers"), target, layout or "transformers", verify=verify
        ),
    )


def _directory(path: Path) -> _Source:
    path = path.absolute()
    recipe = recipe_from_huggingface(path)
    training = exported_training(path)
    if training is not None and training.conv_template is not None and isinstance(recipe.data, LlavaDataConfig):
        data = dataclasses.replace(recipe.data, conv_template=cast(Literal["v1"], training.conv_template))
        recipe = dataclasses.replace(recipe, data=data)
    opened = open_directory(path, thorough=True)
    return _Source(path, recipe, DirectoryWeights(opened, recipe), opened)


def _checkpoint(path: Path, tokenizer: str | None, layout: Layout) -> _Source:
    information = read_information(path)
    kept = read_kept(path / DESCRIPTIONS)
    if kept is not None and kept.comes_back_as(layout) and tokenizer is not None:
        raise CheckpointError(
            f"--tokenizer={tokenizer}: {path} goes back to its own layout, {layout}, with the tokenizer that "
            "came along; leave it out"
        )
    if kept is not None and kept.comes_back_as(layout):
        # Its tokenizer is copied, and may be one that only other programs can use.
        recipe = saved_recipe(path)
    else:
        from neva_model.checkpoints.vocabulary import recipe_with_tokenizer

        recipe, words = recipe_with_tokenizer(path, information, tokenizer)
        if recipe.model.is_saved_in_part and layout != "peft":
            prepare_process()
            from neva_model.checkpoints.adapters.merged import MergedWeights

            return _Source(path, recipe, MergedWeights(path, recipe, information, words))
    return _Source(path, recipe, CheckpointWeights(path, recipe), kept=kept)


def _convert(source: _Source, target: Path, layout: Layout, *, verify: bool) -> Converted:
    if layout == source.layout:
        what = "a checkpoint, which any layout of ranks can load" if layout == "megatron" else f"in the layout {layout}"
        raise CheckpointError(f"{source.path}: is {what}, already: name another one with --layout")
    if verify and layout in ("projector", "peft"):
        what = "a projector alone has" if layout == "projector" else "adapters alone have"
        raise CheckpointError(f"--verify: {what} no logits: leave it out, or write another --layout")
    if source.opened is not None:
        with reading_errors(source.path):
            left = folders_left(source.opened)
        if left:
            tell("note", f"{source.path}: not copied, for no part of the model: the folders {', '.join(left)}")
    differences: list[tuple[float, float]] = []

    def check(folder: Path) -> None:
        if verify:
            from neva_model.checkpoints.converting.verify import largest_difference

            differences.append(largest_difference(source.path, source.recipe, folder, target, source.dtype))

    _write(source, target, layout, check)
    return Converted(source.path, layout, next(iter(differences), None))


def _write(source: _Source, target: Path, layout: Layout, check: Callable[[Path], None]) -> None:
    recipe, weights, kept = source.recipe, source.weights, source.kept
    if layout == "megatron":
        assert source.opened is not None
        with written_whole(target, "directory") as unfinished:
            write_converted(weights, recipe, source.opened, unfinished, target)
            check(unfinished)
        return
    if layout == "peft":
        prepare_process()
        from neva_model.checkpoints.adapters.peft import write_adapters

        with written_whole(target, "directory") as unfinished:
            write_adapters(source.path, recipe, unfinished)
        tell(
            "note", "PEFT loads them beside the weights of their training, never beside a merged model, which has them"
        )
        return
    if kept is not None and kept.comes_back_as(layout):
        with written_whole(target, "directory") as unfinished:
            write_again(weights, recipe.model, kept, unfinished, source.path)
            check(unfinished)
        return
    prepare_process()
    from neva_model.checkpoints.huggingface.export import export_huggingface
    from neva_model.checkpoints.huggingface.original import export_original

    checkpoint = source.path if source.opened is None else None
    export = {
        "transformers": export_huggingface,
        "original": lambda *given, **more: export_original(*given, only_projector=False, **more),
        "projector": lambda *given, **more: export_original(*given, only_projector=True, **more),
    }[layout]
    export(weights, recipe, tokenizer_name(recipe), target, dtype=source.dtype, checkpoint=checkpoint, check=check)
