"""Checks of the questions of an evaluation (their form, their images, whether they suit the model) and of prompts."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from neva_recipes.config import ConvTemplate, DataError, LlavaDataConfig, Recipe, format_value
from neva_recipes.families import image_length
from neva_recipes.plan.data.file_states import shares_of
from neva_recipes.plan.data.record_check import check_records
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer, known_tokenizer
from neva_recipes.prompts.conversation import Conversation, Turn
from neva_recipes.prompts.encoding import check_template, encode_pieces
from neva_recipes.prompts.pictures import looks_texts, missing_image
from neva_recipes.prompts.questions import histories, require_room, require_sight
from neva_recipes.prompts.samples import image_name
from neva_recipes.prompts.templates import Piece, Slot, Template, get_template
from neva_recipes.sources.prompts import read_prompts
from neva_recipes.sources.records import scan_samples

__all__ = ["check_prompts", "check_questions", "have_images_beside", "odd_images", "question_template"]

_FOLDER = "image_folder"
"""The setting of a stage that names the folder of its images."""

_MARKS = 2
"""The most tokens around an image."""


@dataclass(frozen=True)
class _Answerer:
    """What is known of the model that answers questions, before it is loaded.

    Attributes:
        name: Its name, for messages.
        template: The template of its prompts.
        tokenizer: Its tokenizer; `None` if it is not known here.
        tokens_per_image: Positions that an image takes; `None` for a text-only model.
        positions: Positions of the model, for prompt and answer together.
    """

    name: str
    template: Template
    tokenizer: LocalTokenizer | None
    tokens_per_image: int | None
    positions: int

    def __call__(self, conversation: Conversation) -> int:
        """Check that the model can be asked all questions of a conversation.

        Returns:
            How many bytes were encoded to find out.

        Raises:
            DataError: The model cannot be asked.
        """
        require_sight(conversation.image, self.name, sees=self.tokens_per_image is not None)
        if self.tokenizer is None:
            return 0
        *_, longest = histories(conversation.turns)
        most = self._most_tokens(self.template.pieces(longest, conversation.system))
        if most < self.positions:
            return 0
        try:
            require_room(self._length(longest, conversation.system, self.tokenizer), self.positions)
        except DataError:
            # An evaluation names the first question that is too long, so look for it.
            for history in histories(conversation.turns):
                require_room(self._length(history, conversation.system, self.tokenizer), self.positions)
        return most

    def _length(self, history: Sequence[Turn], system: str | None, tokenizer: LocalTokenizer) -> int:
        pieces = self.template.pieces(history, system)
        return len(encode_pieces(pieces, self.template, tokenizer, self.tokens_per_image or 0)[0])

    def _most_tokens(self, pieces: list[Piece]) -> int:
        """Return the most tokens a prompt can have: one for each byte, space before a text and special token."""
        texts = [piece.part for piece in pieces if isinstance(piece.part, str)]
        images = sum(piece.part is Slot.IMAGE for piece in pieces)
        size = sum(len(text.encode(errors="surrogatepass")) for text in texts)
        return size + len(pieces) + 1 + images * ((self.tokens_per_image or 0) + _MARKS)


def check_prompts(files: Iterable[Path]) -> None:
    """Check that files of prompts can be read.

    Raises:
        DataError: One cannot.
    """
    for path in files:
        read_prompts(path)


def check_questions(
    paths: list[Path], image_folder: Path | None, recipe: Recipe | None, asked: ConvTemplate | None
) -> Iterator[str]:
    """Yield what would end an evaluation, one line for each file and kind of mistake.

    The length of a prompt is checked only if the model's tokenizer is here.

    Args:
        paths: LLaVA JSON or JSONL files that exist.
        image_folder: Folder that image names are relative to; `None` means the folder of each file.
        recipe: The recipe of the model; `None` if unknown.
        asked: Conversation template of the questions; `None` means the one of the training.
    """
    if recipe is not None and not isinstance(recipe.data, LlavaDataConfig) and asked in (None, "plain"):
        yield f"conv_template={format_value(asked)}: {recipe.name} is trained on plain text: name another template"
    template = question_template(recipe, asked)
    answerer, problem = _answerer(recipe, template)
    if problem is not None and asked is not None:  # the plan of a training reports on its own template
        yield f"conv_template={asked}: {problem}"
    for path, share in shares_of(paths).items():
        folder = image_folder or path.parent
        try:
            checked = check_records(path, template, folder, share, answerer, setting=_FOLDER)
        except DataError as error:
            yield f"data={error}"
            continue
        if not checked.seen:
            yield f"data={path}: holds no sample"
        elif checked.silent == checked.seen:
            yield f"data={path}: no sample has an answer to compare with"
        if checked.bad:
            yield f"data={path}: {checked.first_bad} (an evaluation ends at the first bad sample)"
        if checked.missing:
            remedy = f"; {checked.lost.remedy}" if checked.lost is not None else ""
            yield f"data={path}: {checked.missing_images(folder)}{remedy}"
        if checked.unusable:
            yield f"data={path}: {checked.unusable_images()}"


def odd_images(
    paths: list[Path], image_folder: Path | None, recipe: Recipe | None, asked: ConvTemplate | None
) -> Iterator[tuple[str, str]]:
    """Yield a line, after the code of its rule, if images of a file are not used as they show themselves.

    The arguments are those of `check_questions`, whose look at the files serves both.
    """
    template = question_template(recipe, asked)
    answerer, _ = _answerer(recipe, template)
    for path, share in shares_of(paths).items():
        with contextlib.suppress(DataError):  # check_questions reports it
            checked = check_records(path, template, image_folder or path.parent, share, answerer, setting=_FOLDER)
            first = {"turned": checked.first_turned, "several": checked.first_several}
            for kind, said in looks_texts(checked.turned, checked.several, checked.looked_into).items():
                yield f"images-{kind}", f"data={path}: {said}; the first that was met is {first[kind]}"


def question_template(recipe: Recipe | None, asked: ConvTemplate | None) -> Template:
    """Return the template that questions are asked with; `recipe` and `asked` are those of `check_questions`."""
    trained = recipe.data.conv_template if recipe is not None and isinstance(recipe.data, LlavaDataConfig) else "v1"
    return get_template(asked or trained)


def have_images_beside(paths: Iterable[Path]) -> bool:
    """Return whether image names are relative to the folder of their file, judged by the first one in each file."""
    return all(name is None or missing_image(path.parent / name) is None for path, name in _first_images(paths))


def _first_images(paths: Iterable[Path]) -> Iterator[tuple[Path, str | None]]:
    """Yield files and the name of the first image in each; `None` if there is none or the file cannot be read."""
    for path in paths:
        try:
            names = (image_name(record) for _, _, record in scan_samples(path))
            yield path, next((name for name in names if name is not None), None)
        except DataError:
            yield path, None  # reading the whole file reports it


def _answerer(recipe: Recipe | None, template: Template) -> tuple[_Answerer | None, DataError | None]:
    """Return what is known of the model of a recipe, and why its tokenizer cannot be used with the template."""
    if recipe is None:
        return None, None
    vision, tokenizer, problem = recipe.model.vision, known_tokenizer(recipe), None
    if tokenizer is not None:
        try:
            check_template(template, tokenizer)
        except DataError as error:
            tokenizer, problem = None, error
    positions = recipe.model.language.longest_sequence
    tokens_per_image = image_length(vision) if vision is not None else None
    return _Answerer(recipe.name, template, tokenizer, tokens_per_image, positions), problem
