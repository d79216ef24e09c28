"""A checkpoint of a run: what it holds and what it can be used for."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from neva_recipes.config import CheckpointError, PlainTable, Recipe, how_many
from neva_recipes.families import vision_family
from neva_recipes.inspection.stored._words import language_shape, vision_shape
from neva_recipes.inspection.stored.stored_model import StoredModel, StoredPart, StoredTensor, Use, part_of_tensors
from neva_recipes.plan.cost.parameters import count_parameters
from neva_recipes.plan.huggingface import why_not_exportable
from neva_recipes.plan.origins.checkpoints import (
    BESIDE_ADAPTERS,
    PARTS,
    find_checkpoint,
    find_run_directory,
    is_without,
    read_saved_recipe,
)
from neva_recipes.plan.tokenizers.tokenizer import known_vocabulary
from neva_recipes.run_directory.names import step_of
from neva_recipes.storage.checkpoints import read_record
from neva_recipes.storage.tensors import checkpoint_tensors, has_random_states

__all__ = ["read_checkpoint"]

_LAYOUT = {
    "tensor_model_parallel_size": "TP",
    "pipeline_model_parallel_size": "PP",
    "context_parallel_size": "CP",
    "virtual_pipeline_model_parallel_size": "VP",
}
"""Entries of the record, and how they are called beside their size."""


def read_checkpoint(path: Path) -> StoredModel:
    """Return what a checkpoint holds, or the newest one of a run; of its tensors only their table is read.

    Raises:
        CheckpointError: There is none, or one of its files is missing or damaged; of tensors only the size is checked.
        RecipeError: Its recipe is missing or invalid.
    """
    try:
        checkpoint = find_checkpoint(path)
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    record, recipe = read_record(checkpoint), read_saved_recipe(checkpoint)
    stored = {
        name: StoredTensor(tensor.dtype, tensor.shape, None) for name, tensor in checkpoint_tensors(checkpoint).items()
    }
    samples = how_many(record["consumed_samples"], "sample")
    title = f"a checkpoint of {recipe.name}: step {record['step']:,}, after {samples}"
    details = _details(record, recipe, stored.get("language.embedding.word_embeddings.weight"))
    made = "saved by" if has_random_states(checkpoint) else "laid out for"
    facts = {made: _layout(record), **_facts(record, recipe, details["vocabulary"])}
    parts, uses = tuple(_parts(recipe, stored)), tuple(_uses(checkpoint, recipe))
    return StoredModel(checkpoint, "checkpoint", title, facts, details, parts, stored, uses)


def _details(record: PlainTable, recipe: Recipe, table: StoredTensor | None) -> PlainTable:
    """Return what is known besides tensors, as plain values.

    Args:
        record: The record of the checkpoint.
        recipe: The recipe of the run.
        table: The embedding, `None` if there is none.
    """
    words, here, digest = recipe.model.language.vocab_size, known_vocabulary(recipe), record.get("vocabulary_digest")
    return {
        "recipe": recipe.name,
        "step": record["step"],
        "consumed_samples": record["consumed_samples"],
        "metrics": record["metrics"],
        "layout": {"world_size": record["world_size"], **{name: record.get(name, 1) for name in _LAYOUT}},
        "has_average": record["has_average"],
        "vocabulary": {
            "rows": table.shape[0] if table is not None else words,
            "rows_of_words": words,
            "digest": digest,
            "tokenizer_is_unchanged": None if here is None or digest is None else here == digest,
        },
    }


def _layout(record: PlainTable) -> str:
    sizes = [f"{name}{size}" for field, name in _LAYOUT.items() if (size := record.get(field, 1)) > 1]
    processes = how_many(record["world_size"], "process", "processes")
    return f"{processes}, {' x '.join(sizes) or 'each with a whole model'}; any other layout can load it"


def _facts(record: PlainTable, recipe: Recipe, vocabulary: PlainTable) -> dict[str, str]:
    facts = {"vocabulary": _rows(vocabulary["rows_of_words"], vocabulary["rows"])}
    if vocabulary["digest"] is not None:
        name = recipe.data.tokenizer or recipe.model.language.source
        state = {True: "", False: ", which has changed since the training", None: ", which cannot be read here"}
        facts |= {"digest": vocabulary["digest"], "tokenizer": f"{name}{state[vocabulary['tokenizer_is_unchanged']]}"}
    facts |= {name: f"{value:.6g}" for name, value in record["metrics"].items() if name.endswith("loss")}
    size = sum(record["files"].values()) / 2**20
    told = f"{len(record['files'])}, {size:,.1f} MiB, whole as far as their sizes tell (nemo-run verify reads them)"
    return {**facts, "files": told}


def _rows(words: int, rows: int) -> str:
    return how_many(words, "row") + (f", and {rows - words} that pad them to {rows:,}" if rows > words else "")


def _parts(recipe: Recipe, stored: Mapping[str, StoredTensor]) -> Iterator[StoredPart]:
    counted = count_parameters(recipe)
    parameters = {part.part: part.total for part in counted}
    by_part: dict[str, list[StoredTensor]] = {}
    for name, tensor in stored.items():
        by_part.setdefault(name.partition(".")[0], []).append(tensor)
    vision, projector = recipe.model.vision, recipe.model.projector
    kinds = {"language": recipe.model.language.family}
    shapes = {"language": language_shape(recipe.model.language)}
    if vision is not None:
        kinds["vision"] = vision.vision_model_type
        family = vision_family(vision)
        shapes["vision"] = vision_shape(family.sizes(vision), vision.image_size)
    if projector is not None and vision is not None:
        kinds["projector"] = projector.mm_projector_type
        shapes["projector"] = f"{vision.hidden_size} to {recipe.model.language.hidden_size}"
    for count in counted:
        config = getattr(recipe.model, count.part)
        if config.adapters is not None:
            name = f"{count.part}_adapters"
            kinds[name], shapes[name], parameters[name] = config.lora.kind, f"rank {config.lora.rank}", count.trained
    for part in sorted(by_part, key=lambda part: PARTS.index(part) if part in PARTS else len(PARTS)):
        yield part_of_tensors(part, by_part[part], kinds.get(part), shapes.get(part, ""), parameters.get(part))


def _uses(checkpoint: Path, recipe: Recipe) -> Iterator[Use]:
    """Yield the fields that can name a checkpoint, and the commands that can open it."""
    name, run = shlex.quote(str(checkpoint)), find_run_directory(checkpoint)
    for part in PARTS:
        yield Use(
            f"model.{part}.from_pretrained",
            f"model.{part}.from_pretrained={name}",
            _why_not(recipe, part),
        )
    if run is not None and (step := step_of(checkpoint)) is not None:
        yield Use("nemo-run resume", f"nemo-run resume {shlex.quote(str(run))} --from step-{step}")
    yield Use("nemo-run chat", f"nemo-run chat {name}")
    yield Use("nemo-run export", f"nemo-run export {name} DIR", why_not_exportable(recipe))


def _why_not(recipe: Recipe, part: str) -> str | None:
    """Return why a checkpoint cannot be the source of a part; `None` if it can."""
    if getattr(recipe.model, part) is None:
        return f"holds no {_CALLED[part]}"
    return BESIDE_ADAPTERS if is_without(recipe, part) else None


_CALLED = {"language": "language model", "vision": "vision tower", "projector": "projector"}
