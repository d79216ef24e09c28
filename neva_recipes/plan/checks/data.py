"""Rules on the data, its template and the length of sequences."""

from collections.abc import Iterator
from pathlib import Path

from neva_recipes.config import LlavaDataConfig, Recipe, TextDataConfig, how_many, listed_paths
from neva_recipes.families import image_length
from neva_recipes.plan.checks._rules import Found, Rule, found, multiples, of_new
from neva_recipes.plan.cost.rows import row_multiple
from neva_recipes.plan.findings import error, warning
from neva_recipes.prompts.templates import Slot, get_template
from neva_recipes.sources.indexed import is_indexed

__all__ = ["data_rules"]

_LENGTH = "data.sequence_length"
_LOADER = "data.dataloader_type"
_FILES, _BLEND = "data.data_path", "data.blend"


def kind_of_data(recipe: Recipe) -> Iterator[Found]:
    """Image data needs a vision tower; plain text must not have one."""
    if isinstance(recipe.data, LlavaDataConfig) and recipe.model.vision is None:
        message = "data of class LlavaDataConfig needs model.vision and model.projector"
        advice = "set both, or give the recipe data of class TextDataConfig"
        yield found(error("data-needs-vision", message, recipe, "model.vision", advice=advice))
    if isinstance(recipe.data, TextDataConfig) and recipe.model.vision is not None:
        message = "data of class TextDataConfig has no images for the vision tower"
        yield found(
            error("data-without-images", message, recipe, advice="give the recipe data of class LlavaDataConfig"),
            [
                {"model.vision": None, "model.projector": None},
                {"model.vision": None, "model.projector": None, "model.use_im_start_end": False},
            ],
        )


def image_fits(recipe: Recipe) -> Iterator[Found]:
    """A sequence has room for an image, the shortest prompt around it and one token of an answer."""
    model, data = recipe.model, recipe.data
    if model.vision is None or not isinstance(data, LlavaDataConfig):
        return
    template = get_template(data.conv_template)
    marks = 2 * (model.use_im_start_end and template.marks_image)
    parts = (*template.first_question, *template.answer)
    # A tokenizer makes at least one token of each word and of each special token.
    prompt = sum(len(part.split()) if isinstance(part, str) else not isinstance(part, Slot) for part in parts) + 1
    needed = image_length(model.vision) + marks + prompt
    if needed > data.sequence_length:
        image = "model.vision.image_size"
        yield found(
            error(
                "image-does-not-fit",
                f"an image of {image_length(model.vision) + marks} tokens and the shortest prompt and answer "
                f"({prompt} or more) do not fit into {data.sequence_length} tokens",
                recipe,
                _LENGTH,
                image,
                "data.conv_template",
            ),
            [{_LENGTH: -(-needed // 64) * 64}, {_LENGTH: needed}],
            *of_new(model.vision, multiples(image, model.vision.image_size, model.vision.patch_size)[0]),
        )


def image_marks_template(recipe: Recipe) -> Iterator[Found]:
    """The template has a place for the tokens around an image."""
    data = recipe.data
    if not (recipe.model.use_im_start_end and recipe.model.vision and isinstance(data, LlavaDataConfig)):
        return
    if not get_template(data.conv_template).marks_image:
        path = "model.use_im_start_end"
        message = f"the template {data.conv_template} leaves out the tokens around images, as its origin does"
        yield found(warning("image-marks-template", message, recipe, path, "data.conv_template"), [{path: False}])


def captions_template(recipe: Recipe) -> Iterator[Found]:
    """A template that drops the questions is for the stage in which the language model learns nothing."""
    data = recipe.data
    if not (isinstance(data, LlavaDataConfig) and recipe.model.language.trains):
        return
    if get_template(data.conv_template).asking is None:
        path, freeze = "data.conv_template", "model.language.freeze"
        message = (
            f"the template {data.conv_template} drops every question: it is for captions, by which a projector is "
            "trained, and the language model would learn to answer what it was not asked"
        )
        yield found(warning("template-without-questions", message, recipe, path, freeze), [{path: "v1"}])


def grouping(recipe: Recipe) -> Iterator[Found]:
    """Grouping by length reorders samples, which a single pass cannot."""
    data = recipe.data
    if isinstance(data, LlavaDataConfig) and data.group_by_modality_length and data.dataloader_type != "cyclic":
        path = "data.group_by_modality_length"
        message = "a single pass takes samples in the order of the file and cannot group them"
        yield found(error("grouping", message, recipe, path, _LOADER), [{_LOADER: "cyclic"}], [{path: False}])


def single_pass(recipe: Recipe) -> Iterator[Found]:
    """A single pass ends after one epoch."""
    epochs = recipe.trainer.max_epochs
    if recipe.data.dataloader_type == "single" and recipe.trainer.max_steps is None and (epochs or 0) > 1:
        path = "trainer.max_epochs"
        message = f"a single pass is over after one epoch, not {epochs}"
        yield found(error("single-pass", message, recipe, _LOADER, path), [{_LOADER: "cyclic"}], [{path: 1}])


def full_rows(recipe: Recipe) -> Iterator[Found]:
    """Full rows of text are divisible without padding."""
    length, multiple = recipe.data.sequence_length, row_multiple(recipe, on_gpu=False)
    parallel = recipe.parallel
    paths = [_LENGTH]
    paths += ["parallel.tensor_model_parallel_size"] if parallel.sequence_parallel else []
    paths += ["parallel.context_parallel_size"] if parallel.context_parallel_size > 1 else []
    paths += ["precision.fp8"] if recipe.precision.fp8 is not None else []
    if isinstance(recipe.data, TextDataConfig) and length % multiple:
        message = f"every row is full, and is padded to a multiple of {multiple} to be divided"
        yield found(warning("row-multiple", message, recipe, *paths), *multiples(_LENGTH, length, multiple))


def blend(recipe: Recipe) -> Iterator[Found]:
    """Only indexed datasets are blended, each with a weight, and in no order of their own."""
    data = recipe.data
    names = listed_paths(data.data_path)
    indexed = [name for name in names if is_indexed(Path(name))]
    if indexed and len(indexed) < len(names):
        message = f"names {how_many(len(indexed), 'file')} of tokens (.idx) and others of text: they are not mixed"
        yield found(
            error("tokens-and-text", message, recipe, _FILES, advice="make tokens of the text: nemo-run data text")
        )
    if isinstance(data, LlavaDataConfig):
        if indexed:
            message = f"{indexed[0]} holds tokens of text, and no conversations"
            yield found(error("tokens-and-text", message, recipe, _FILES, advice="train on it with gpt.pretrain"))
        return
    if data.blend is None:
        return
    if names and not indexed:
        message = "weighs indexed datasets (.idx), and data.data_path names none"
        yield found(error("blend", message, recipe, _BLEND, _FILES), [{_BLEND: None}])
    elif names and len(data.blend) != len(names):
        message = f"has {how_many(len(data.blend), 'weight')} for {how_many(len(names), 'file')}"
        yield found(error("blend", message, recipe, _BLEND, _FILES), [{_BLEND: None}])
    if data.dataloader_type == "single":
        message = "a single pass takes the files one after the other, and blends nothing"
        yield found(error("blend", message, recipe, _BLEND, _LOADER), [{_LOADER: "cyclic"}], [{_BLEND: None}])


data_rules: tuple[Rule, ...] = (
    kind_of_data,
    image_fits,
    image_marks_template,
    captions_template,
    grouping,
    single_pass,
    full_rows,
    blend,
)
