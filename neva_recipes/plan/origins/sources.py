"""The sources of the parts of a model: local Hugging Face directories, runs and checkpoints."""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from neva_recipes.config import (
    CheckpointError,
    DataError,
    PlainTable,
    Recipe,
    RecipeError,
    VisionConfig,
    expand_path,
    format_value,
    path_is,
)
from neva_recipes.families import vision_family
from neva_recipes.families.published import hub_shape
from neva_recipes.plan.checks import Found, found
from neva_recipes.plan.findings import error, field_value, warning
from neva_recipes.plan.huggingface import (
    Directory,
    cached_models,
    cached_snapshot,
    compare_part,
    could_be_on_hub,
    described_directory,
    image_side,
    is_cached,
    is_huggingface,
    kept_directory,
    read_image_processor,
    vocabulary_rows,
)
from neva_recipes.plan.origins.checkpoints import (
    BESIDE_ADAPTERS,
    CHANGED_SINCE,
    PARTS,
    find_checkpoint,
    is_without,
    model_differences,
    other_vocabulary,
    read_saved_recipe,
)
from neva_recipes.plan.origins.other_size import other_size
from neva_recipes.plan.origins.own_tokenizer import check_own_tokenizer, has_other_tokens
from neva_recipes.plan.origins.unfinished import UnfinishedRun, unfinished_run
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer, known_vocabulary, recipe_tokenizer
from neva_recipes.plan.trained.trainings import recipes_of_run
from neva_recipes.run_directory.layout import CHECKPOINTS
from neva_recipes.storage.checkpoints import read_record
from neva_recipes.storage.exports import exported_checkpoint

__all__ = ["Opened", "check_sources"]

_POSITIONS = "model.vision.position_image_size"


class Opened:
    """The runs and directories read so far; each is read once, however many recipes name it.

    Args:
        models: Folder of the models that have been fetched from the hub; `None` means that of this process.

    Attributes:
        coming: Recipes of runs that do not exist yet, by the path that each will have.
    """

    def __init__(self, models: Path | None = None) -> None:
        self._models = cached_models(os.environ) if models is None else models
        self.coming: dict[str, Recipe] = {}
        self.directory = cache(kept_directory)
        self.saved_recipe = cache(lambda path: read_saved_recipe(find_checkpoint(path)))
        self.unfinished = cache(lambda path: unfinished_run(path, find_checkpoint(path), self.saved_recipe(path)))
        self.saved_vocabulary = cache(lambda path: read_record(find_checkpoint(path)).get("vocabulary_digest"))
        self.recipes = cache(self._recipes)
        self.exported_from = cache(_exported_from)

    def _recipes(self, source: str) -> Sequence[Recipe]:
        """Return the recipes of a run, oldest first, by its directory, a checkpoint, an export or its future path."""
        return [self.coming[source]] if source in self.coming else recipes_of_run(source)

    def first_recipe(self, source: str) -> Recipe | None:
        """Return the recipe that a run began with, which names the source of its weights; `None` if unknown."""
        return next(iter(self.recipes(source)), None)

    def tokens(self, recipe: Recipe) -> int | None:
        """Return how many tokens the tokenizer of a recipe has; `None` if it cannot be read here."""
        try:
            tokenizer = self.tokenizer(recipe)
        except (DataError, RecipeError):
            return None
        return tokenizer.vocab_size if tokenizer is not None else None

    def tokenizer(self, recipe: Recipe) -> LocalTokenizer | None:
        """Return the tokenizer of a recipe, as `recipe_tokenizer` does."""
        return recipe_tokenizer(recipe, self._models)

    def fetched(self, source: str) -> Directory | None:
        """Return what has been fetched of a model on the hub; `None` if not even its config.json has.

        Raises:
            CheckpointError: It holds something that is not understood.
        """
        snapshot = cached_snapshot(source, self._models) if could_be_on_hub(source) else None
        if snapshot is None:
            return None
        if is_cached(source, self._models, weights=True):
            return self.directory(snapshot)
        return described_directory(snapshot) if path_is(snapshot / "config.json", Path.is_file) else None

    def vocabularies(self, recipe: Recipe, tokens: int) -> list[int]:
        """Return the vocabulary sizes that the directory of a recipe's language model allows with so many tokens."""
        opened = self.own_directory(recipe)
        configuration = opened.configuration if opened is not None else None
        there = vocabulary_rows(configuration) if configuration is not None else None
        return [there.nearest(tokens), there.rows] if there is not None else []

    def own_directory(self, recipe: Recipe) -> Directory | None:
        """Return the directory of a recipe's language model; `None` if it is not here or is not understood."""
        source = recipe.model.language.source
        path = expand_path(source) if source is not None else None
        if source is None or path is None:
            return None
        try:
            if not path_is(path):
                return self.fetched(source)
            return self.directory(path) if path.is_dir() and is_huggingface(path) else None
        except CheckpointError:
            return None


def _exported_from(source: str) -> str | None:
    """Return the run that an exported directory was made from, or a checkpoint outside of a run.

    Returns `None` if the directory is no export or does not say.
    """
    path = expand_path(source)
    checkpoint = exported_checkpoint(path) if path_is(path, Path.is_dir) else None
    if checkpoint is None:
        return None
    return str(checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else checkpoint)


def check_sources(recipe: Recipe, opened: Opened) -> Iterator[Found]:
    """Yield what is wrong with the local sources that parts of the model start from."""
    unusable: dict[str, list[str]] = {}
    unfinished: dict[UnfinishedRun, list[str]] = {}
    for part in PARTS:
        config = getattr(recipe.model, part)
        field = f"model.{part}.from_pretrained"
        if config is None or config.source is None:
            continue
        path = expand_path(config.source)
        try:
            if config.source in opened.coming:
                coming = opened.coming[config.source]
                yield from _ours(recipe, part, field, coming)
                yield from _tokens(recipe, part, field, known_vocabulary(coming), coming)
            elif not path_is(path):
                if (directory := opened.fetched(config.source)) is not None:
                    yield from _huggingface(recipe, part, field, directory, opened.tokens(recipe))
                else:
                    yield from _published(recipe, part, field, config.source)
            elif not path.is_dir():
                yield found(error("file-kind", "is a file, expected a folder", recipe, field))
            elif is_huggingface(path):
                yield from _huggingface(recipe, part, field, opened.directory(path), opened.tokens(recipe))
            else:
                saved = opened.saved_recipe(path)
                if (run := opened.unfinished(path)) is not None:
                    unfinished.setdefault(run, []).append(field)
                yield from _ours(recipe, part, field, saved)
                yield from _tokens(recipe, part, field, opened.saved_vocabulary(path), saved)
        except (CheckpointError, RecipeError) as problem:
            unusable.setdefault(str(problem), []).append(field)
    for message, fields in unusable.items():
        yield found(error("checkpoint-unusable", message, recipe, *fields))
    for run, fields in unfinished.items():
        # A run that goes on may remove the checkpoint before training starts.
        named = [] if run.goes_on else [dict.fromkeys(fields, str(run.checkpoint))]
        message = run.message + (", and the one that is the newest when training starts is taken" * run.goes_on)
        yield found(warning("unfinished-run", message, recipe, *fields, advice=run.advice), named)


def _ours(recipe: Recipe, part: str, field: str, saved: Recipe) -> Iterator[Found]:
    differences = list(model_differences(saved, recipe, part))
    if is_without(saved, part):
        yield found(error("adapters-alone", BESIDE_ADAPTERS, recipe, field))
    elif differences and differences[0][0] == f"model.{part}":
        message = f"has no {part}: it was trained by the recipe {saved.name}"
        yield found(error("shape-mismatch", message, recipe, field))
    elif differences:
        there = {name: value for name, value, _ in differences}
        yield _mismatch(recipe, part, field, f"was trained with {_settings(there)}", there)


def _published(recipe: Recipe, part: str, field: str, source: str) -> Iterator[Found]:
    """Yield an error if the recipe gives a model on the hub, whose sizes are known, other ones."""
    config = getattr(recipe.model, part)
    there = {f"model.{part}.{name}": value for name, value in (hub_shape(source) or {}).items() if part in PARTS[:2]}
    differing = {path: value for path, value in there.items() if field_value(recipe, path) != value}
    if part == "vision" and there.get(_POSITIONS) == config.position_side:
        differing.pop(_POSITIONS, None)
    if part == "language" and there and config.kv_channels is not None:
        own = there["model.language.hidden_size"] // there["model.language.num_attention_heads"]
        differing |= {"model.language.kv_channels": None} if config.kv_channels != own else {}
    if differing:
        message = f"its weights have {_settings(differing)}"
        yield found(error("shape-mismatch", message, recipe, field, *differing), [differing])


def _settings(values: PlainTable) -> str:
    return ", ".join(f"{path.split('.', 2)[2]}={format_value(value)}" for path, value in values.items())


def _mismatch(recipe: Recipe, part: str, field: str, message: str, there: PlainTable) -> Found:
    """Return the error about weights of other sizes: the size of the recipe that has them, or these sizes, mend it.

    Other weights that the recipe names may have the present sizes: then only a projector made for them fits.
    """
    if advice := other_size(recipe, there):
        return found(error("shape-mismatch", message, recipe, field, *there, advice=advice))
    beside = [
        neighbour.source
        for name, neighbour in (("language", recipe.model.language), ("vision", recipe.model.vision))
        if part == "projector" and neighbour is not None and f"model.{name}.hidden_size" in there
    ]
    held = [source for source in beside if source is not None]
    advice = f"take a projector that was trained beside {' and '.join(held)}" if held else ""
    # Weights that are not here cannot be asked for their sizes.
    ways = [[there]] if all(path_is(expand_path(source)) for source in held) else []
    return found(error("shape-mismatch", message, recipe, field, *there, advice=advice), *ways)


def _tokens(recipe: Recipe, part: str, field: str, digest: str | None, saved: Recipe) -> Iterator[Found]:
    """Yield an error if the embedding of a run was trained with a vocabulary other than the recipe's tokenizer's."""
    if part != "language" or digest is None:
        return
    if other := other_vocabulary(digest, known_vocabulary(recipe), saved, recipe):
        fields = other.remedy or ("data.tokenizer",)
        advice = "" if other.remedy else CHANGED_SINCE
        yield found(error("other-vocabulary", other.message, recipe, field, *fields, advice=advice), [other.remedy])


def _huggingface(recipe: Recipe, part: str, field: str, directory: Directory, tokens: int | None) -> Iterator[Found]:
    mismatches = list(compare_part(directory, recipe.model, part))
    if mismatches:
        settings = {mismatch.field: mismatch.value for mismatch in mismatches if mismatch.field}
        message = "; ".join(mismatch.message for mismatch in mismatches)
        message = f"config.json there: {message}" if settings else message
        if len(settings) == len(mismatches):
            yield _mismatch(recipe, part, field, message, settings)
        else:
            yield found(error("shape-mismatch", message, recipe, field, *settings))
    elif part == "language" and directory.configuration is not None:
        yield from _vocabulary(recipe, directory, field, tokens)
        yield from check_own_tokenizer(recipe, directory.configuration, directory.path)
    if part == "vision" and recipe.model.vision is not None:
        yield from _image_processor(recipe, recipe.model.vision, field, directory.path)


def _vocabulary(recipe: Recipe, directory: Directory, field: str, tokens: int | None) -> Iterator[Found]:
    marks, path = recipe.model.use_im_start_end, "model.language.vocab_size"
    there = vocabulary_rows(directory.configuration) if directory.configuration is not None else None
    if there is None or there.takes(recipe.model.language.vocab_size, tokens, use_im_start_end=marks):
        return
    words = f", {there.text} of them for words" if there.text < there.rows else ""
    given = f", and the tokenizer {tokens} tokens" if tokens is not None else ""
    message = f"the embedding there has {there.rows} rows{words}{given}"
    if has_other_tokens(recipe, directory):  # no size gives the rows their words
        advice = "use the model's own tokenizer"
        yield found(error("vocabulary-size", message, recipe, field, path, "data.tokenizer", advice=advice))
        return
    sizes = [there.nearest(tokens, use_im_start_end=marks), there.rows]
    yield found(error("vocabulary-size", message, recipe, field, path), [{path: size} for size in sizes])


def _image_processor(recipe: Recipe, vision: VisionConfig, field: str, path: Path) -> Iterator[Found]:
    """Yield an error if the directory's image processor makes images of a size that the tower does not take.

    Raises:
        CheckpointError: The settings of the image processor cannot be read.
    """
    if (settings := read_image_processor(path)) is None:
        return
    name, fields = settings
    family = vision_family(vision)
    side = image_side(fields, crops=family.crops)
    if side not in (None, vision.image_size) and not family.interpolates:
        message = f"{name} there makes images of {side} pixels"
        yield found(error("shape-mismatch", message, recipe, field, "model.vision.image_size"))
