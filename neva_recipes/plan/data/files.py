"""The files that a recipe names: whether they exist, can be read and fit the recipe."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from neva_recipes.config import (
    DataError,
    LlavaDataConfig,
    Recipe,
    RecipeError,
    expand_path,
    listed_paths,
    path_is,
)
from neva_recipes.plan.checks import Found, Rule, found, rules_for, run_rules
from neva_recipes.plan.cost.gpus import Gpu
from neva_recipes.plan.data.cut_check import check_cuts
from neva_recipes.plan.data.data_files import check_data_files, check_image_folder, check_images, records_checked
from neva_recipes.plan.data.near_files import suggest_files
from neva_recipes.plan.data.passes_check import check_single_pass
from neva_recipes.plan.findings import Finding, error, field_value
from neva_recipes.plan.huggingface import could_be_on_hub, is_hub_name
from neva_recipes.plan.origins.adapters import check_adapters
from neva_recipes.plan.origins.checkpoints import PARTS
from neva_recipes.plan.origins.left_projector import check_left_projector
from neva_recipes.plan.origins.own_tokenizer import has_other_tokens
from neva_recipes.plan.origins.projector import check_projector
from neva_recipes.plan.origins.sources import Opened, check_sources
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer
from neva_recipes.plan.trained.repeats import check_repeats
from neva_recipes.plan.trained.same_files import check_validation_files, trained_files
from neva_recipes.plan.trained.same_samples import check_validation_samples, questions_trained_on
from neva_recipes.plan.trained.sought_samples import DataFile
from neva_recipes.prompts.templates import TEMPLATES, get_template

__all__ = ["FileRules", "check_files", "records_checked"]

_WILDCARDS = frozenset("*?")

_FEW = 4
"""The most files matching a pattern that are named one by one."""


class FileRules:
    """The rules on the files that recipes name; a file is read once for all recipes.

    Of a model on the Hugging Face hub what has been fetched is checked; the worker checks the rest. A name whose first
    half is a local folder is taken for a path.

    Args:
        runs_dir: Folder in which runs were looked for by name, for messages; `None` if in none.
        models: Folder of the models that have been fetched from the hub; `None` means that of this process.

    Attributes:
        rules: The rules.
    """

    def __init__(self, runs_dir: str | Path | None = None, models: Path | None = None) -> None:
        self._runs_dir = runs_dir
        self._opened = Opened(models)
        self._data: dict[str, list[Finding]] = {}
        self.rules: tuple[Rule, ...] = (
            self._data_rule,
            partial(check_cuts, models=models),
            check_single_pass,
            check_images,
            check_image_folder,
            self._validation_rule,
            self._samples_rule,
            check_repeats,
            self._names_rule,
            self._sources_rule,
            self._adapters_rule,
            self._projector_rule,
            self._left_projector_rule,
            self._tokenizer_rule,
        )

    def expect(self, path: str, recipe: Recipe) -> None:
        """Announce a run that does not exist yet.

        Args:
            path: The path it will have.
            recipe: The recipe it trains.
        """
        self._opened.coming[path] = recipe

    def check(self, recipe: Recipe, gpu: Gpu | None = None) -> list[Finding]:
        """Return what is wrong with the files that a recipe names, as far as can be seen here in an instant.

        Args:
            recipe: A built recipe.
            gpu: The type of GPU it will run on, so that no remedy leads to an error there; `None` if unknown.
        """
        return run_rules(self.rules, recipe, rules_for(gpu))

    def _data_rule(self, recipe: Recipe) -> Iterator[Found]:
        named = repr((recipe.data, recipe.model.vision is None))
        if named not in self._data:
            self._data[named] = list(_data_files(recipe))
        return map(_with_ways, self._data[named])

    def _names_rule(self, recipe: Recipe) -> Iterator[Found]:
        return _names(recipe, self._runs_dir)

    def _sources_rule(self, recipe: Recipe) -> Iterator[Found]:
        return check_sources(recipe, self._opened)

    def _adapters_rule(self, recipe: Recipe) -> Iterator[Found]:
        return check_adapters(recipe, self._opened.coming)

    def trained_files(self, source: str, names: Iterable[str]) -> list[str]:
        """Return the data files that a model was trained on, in its run or in a run that its weights come from.

        Args:
            source: The run, which may not exist yet; for other models nothing is known.
            names: Paths of data files.
        """
        return trained_files(self._opened.recipes(source), names, self._opened.recipes)

    def trained_questions(self, source: str, questions: Sequence[DataFile]) -> str:
        """Return as text how many of the questions are training samples of a model; empty if none is known to be.

        Args:
            source: As for `trained_files`.
            questions: Files of questions that are not among its training files.
        """
        return questions_trained_on(self._opened.recipes(source), questions, self._opened.recipes)

    def _validation_rule(self, recipe: Recipe) -> Iterator[Found]:
        return check_validation_files(recipe, self._opened.recipes)

    def _samples_rule(self, recipe: Recipe) -> Iterator[Found]:
        return check_validation_samples(recipe, self._opened.recipes)

    def _projector_rule(self, recipe: Recipe) -> Iterator[Found]:
        return check_projector(recipe, self._opened)

    def _left_projector_rule(self, recipe: Recipe) -> Iterator[Found]:
        return check_left_projector(recipe, self._opened)

    def _tokenizer_rule(self, recipe: Recipe) -> Iterator[Found]:
        return _tokenizer(recipe, self._opened)


def check_files(recipe: Recipe) -> list[Finding]:
    """Return what is wrong with the files that a recipe names, as far as can be seen here in an instant."""
    return FileRules().check(recipe)


def _data_files(recipe: Recipe) -> Iterator[Finding]:
    if recipe.data.data_path is None:
        yield error(
            "file-not-set", "names no file to train on", recipe, "data.data_path", advice="add data.data_path=FILE"
        )
    for field in ("data.data_path", "data.validation_data_path"):
        named = listed_paths(field_value(recipe, field))
        if not named and field_value(recipe, field) is not None:
            yield error("file-missing", "is empty, expected a file", recipe, field, advice="none clears it")
        for number in range(len(named)):
            yield from _missing(recipe, field, Path.is_file, "file", "set it to the one to read", named, number)
        yield from check_data_files(recipe, field)
    if isinstance(recipe.data, LlavaDataConfig) and recipe.data.image_folder is not None:
        field, advice = "data.image_folder", "set it to that of the images"
        yield from _missing(recipe, field, Path.is_dir, "folder", advice, [recipe.data.image_folder], 0)


def _names(recipe: Recipe, runs_dir: str | Path | None) -> Iterator[Found]:
    if recipe.data.tokenizer is None and recipe.model.language.source is None:
        yield found(
            error(
                "file-not-set",
                "names no tokenizer, and there is no model.language.from_pretrained to take it from",
                recipe,
                "data.tokenizer",
                advice="add data.tokenizer=PATH",
            )
        )
    for field in ("data.tokenizer", *(f"model.{part}.from_pretrained" for part in PARTS)):
        name = field_value(recipe, field if field == "data.tokenizer" else field.replace("from_pretrained", "source"))
        if name is None or path_is(expand_path(name)):
            continue
        if not is_hub_name(name):
            may_be_run = field != "data.tokenizer" and "/" not in name
            place = "" if runs_dir is None else f" in {runs_dir}"
            kinds = f"run{place}, file or folder" if may_be_run else "file or folder"
            yield from _not_there(recipe, field, f"no such {kinds}")
        elif not could_be_on_hub(name):
            advice = "its first part is a folder here, so it is not looked for on the Hugging Face hub"
            yield from _not_there(recipe, field, "no such file or folder", advice)


def _not_there(recipe: Recipe, field: str, message: str, advice: str = "") -> Iterator[Found]:
    hint = suggest_files(field_value(recipe, field))
    yield found(error("file-missing", f"{message}{hint}", recipe, field, advice="" if hint else advice))


def _with_ways(finding: Finding) -> Found:
    """Return a finding whose remedies are tried before they are offered."""
    return found(dataclasses.replace(finding, remedies=()), *([remedy] for remedy in finding.remedies))


def _tokenizer(recipe: Recipe, opened: Opened) -> Iterator[Found]:
    """Yield an error if the tokenizer has more tokens than the model, or lacks those of the template."""
    field = "data.tokenizer" if recipe.data.tokenizer is not None else "model.language.from_pretrained"
    if recipe.data.tokenizer is None and recipe.model.language.source is None:
        return
    try:
        tokenizer = opened.tokenizer(recipe)
    except (DataError, RecipeError) as problem:
        message = str(problem).removeprefix(f"{field_value(recipe, field)}: ")
        yield found(error("tokenizer-unusable", message, recipe, field))
        return
    if tokenizer is None:
        return
    size = "model.language.vocab_size"
    if tokenizer.vocab_size > recipe.model.language.vocab_size:
        counted = ", those of use_im_start_end counted" if tokenizer.adds_image_tokens else ""
        # With the tokens of another tokenizer no size gives the rows of the embedding their words.
        sizes = [tokenizer.vocab_size, *opened.vocabularies(recipe, tokenizer.vocab_size)]
        larger = [] if has_other_tokens(recipe, opened.own_directory(recipe)) else sizes
        yield found(
            error(
                "vocabulary-size",
                f"the tokenizer has {tokenizer.vocab_size} tokens{counted}, more than the model",
                recipe,
                field,
                size,
                advice="use the model's own tokenizer",
            ),
            [{size: number} for number in larger],
        )
    if isinstance(recipe.data, LlavaDataConfig):
        yield from _template(recipe, recipe.data, field, tokenizer)


def _template(recipe: Recipe, data: LlavaDataConfig, field: str, tokenizer: LocalTokenizer) -> Iterator[Found]:
    lacking = [token for token in get_template(data.conv_template).special_tokens if token not in tokenizer.specials]
    if lacking:
        fitting = [
            name
            for name, template in TEMPLATES.items()
            # plain is only for captions
            if name != "plain" and all(token in tokenizer.specials for token in template.special_tokens)
        ]
        yield found(
            error(
                "template-tokens",
                f"the tokenizer has no special token {', '.join(lacking)}, which the template needs",
                recipe,
                field,
                "data.conv_template",
                advice="use another tokenizer",
            ),
            *([{"data.conv_template": name}] for name in fitting[:3]),
        )


def _missing(
    recipe: Recipe,
    field: str,
    kind: Callable[[Path], bool],
    expected: str,
    advice: str,
    named: list[str],
    number: int,
) -> Iterator[Finding]:
    """Yield what is wrong if one of the paths that a field names is missing or of the wrong kind."""
    if path_is(path := expand_path(named[number]), kind):
        return
    which = f"{named[number]}: " if len(named) > 1 else ""
    if path_is(path):
        kinds = {"folder": Path.is_dir, "file": Path.is_file}
        found = next((found for found, is_kind in kinds.items() if path_is(path, is_kind)), "pipe or device")
        yield error("file-kind", f"{which}is a {found}, expected a {expected}", recipe, field, advice=advice)
    elif expected == "file" and (matching := _matching(named[number])):
        yield _pattern(recipe, field, which, matching, named, number)
    else:
        # A model serves as several parts, but one file of data is not another.
        fields = ("data.data_path", "data.validation_data_path")
        taken = [path for other in fields for path in listed_paths(field_value(recipe, other))]
        hint = suggest_files(named[number], taken, only_files=expected == "file")
        message = f"{which}no such {expected}{hint}"
        missing = error("file-missing", message, recipe, field, advice="" if hint else advice)
        yield dataclasses.replace(missing, path=named[number] if len(named) > 1 else None)


def _matching(name: str) -> list[str]:
    """Return the files that a name with wildcards would match in a shell; they are not read."""
    if not _WILDCARDS.intersection(name):
        return []
    path = expand_path(name.replace("**", "*"))  # searching all folders would take too long
    try:
        matches = list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except (OSError, ValueError):
        return []
    return sorted(str(match) for match in matches if path_is(match, Path.is_file))


def _pattern(recipe: Recipe, field: str, which: str, matching: list[str], named: list[str], number: int) -> Finding:
    """Return the finding about a name with wildcards that matches files."""
    whole = [*named[:number], *matching, *named[number + 1 :]]
    few = len(matching) <= _FEW
    count = f"{len(matching):,} files match it" if len(matching) > 1 else "one file matches it"
    return error(
        "file-kind",
        f"{which}patterns are not read, files are named with commas between them; {count}",
        recipe,
        field,
        remedies=[{field: whole if len(whole) > 1 else whole[0]}] if few else [],
        advice="" if few else f"in a shell, $(ls {named[number]} | paste -sd,) names them all",
    )
