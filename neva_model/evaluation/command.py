"""`nemo-run evaluate`: compares a model's answers with the reference answers of a data file."""

import argparse
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from neva_model.inference.options import conv_template_named
from neva_model.log_width import log_width
from neva_model.progress import ProgressLine
from neva_model.startup import prepare_command
from neva_recipes.config import (
    LlavaDataConfig,
    PlainTable,
    Recipe,
    RunError,
    UserError,
    expand_path,
    format_value,
    how_many,
    listed_paths,
    path_is,
)
from neva_recipes.interruption import uninterrupted
from neva_recipes.plan.data.question_files import have_images_beside
from neva_recipes.plan.trained.repeats import first_copy, repeats_text
from neva_recipes.plan.trained.same_files import NOTHING_NEW, TRAINED_ON, shared_text
from neva_recipes.plan.trained.sought_samples import DataFile
from neva_recipes.plan.trained.trainings import recipes_of_run
from neva_recipes.prompts.pictures import look_into, looks_texts
from neva_recipes.run_directory.layout import CHECKPOINTS, EVALUATION_FILE, EVALUATIONS, PREDICTIONS_FILE
from neva_recipes.run_directory.stages import stage_name
from neva_recipes.sources.content import open_content
from neva_recipes.storage.digests import digests_of, text_digest
from neva_recipes.storage.exports import exported_checkpoint
from neva_recipes.terminal import tell

if TYPE_CHECKING:
    from neva_model.evaluation.questions import Question
    from neva_model.evaluation.trained import TrainedSamples
    from neva_model.inference.opening import OpenModel

__all__ = ["main", "run_directory_of"]

_LONGEST_STEM = 40


def main(arguments: Sequence[str]) -> int:
    """Evaluate a model, print a table, and write evaluation.json and predictions.jsonl beside the model.

    Both are also kept in evaluations/, under a name made from the checkpoint and the data.

    Args:
        arguments: A run, checkpoint or Hugging Face directory, and flags.

    Returns:
        The exit code.

    Raises:
        UserError: The model, the data or a flag cannot be used.
    """
    options = _parse(arguments)
    template = conv_template_named(options.conv_template)
    prepare_command()
    from neva_model.evaluation.report import format_table, predictions_text, require_no_other_file, score_questions
    from neva_model.inference.opening import open_model, tell_of_template

    if options.output is not None:
        require_no_other_file(options.output)
    data = list(map(expand_path, listed_paths(options.data)))
    for path in data:  # before the model, which may take minutes
        with open_content(path):
            pass
    opened = open_model(options.run, template, options.tokenizer)
    print(_model_line(opened.source), flush=True)
    tell_of_template(opened, template)
    directory = run_directory_of(opened.source)
    predictions = options.output if options.output is not None else directory / PREDICTIONS_FILE
    _require_places(directory, predictions)
    asked = _read(opened, data, options)
    started = time.perf_counter()
    answers = _answers(opened, asked.questions, options.batch_size)
    total, by_text = score_questions(asked.questions, answers)
    report = {
        **asked.report,
        "seconds": round(time.perf_counter() - started, 3),
        **total.as_json(),
        "by_question": {text: score.as_json() for text, score in by_text.items()},
    }
    text = predictions_text(asked.questions, answers, asked.trained.have)
    try:
        with uninterrupted():
            _save(directory, predictions, asked.name, report, text)
    finally:  # the answers may have taken hours: a full disk must not lose the scores as well
        print(format_table(total, by_text, log_width(predictions.parent)))
    print(f"answers: {predictions}")
    return 0


class _Asked(NamedTuple):
    """What a model is asked.

    Attributes:
        questions: The questions.
        name: Name of the files that are kept of the evaluation.
        report: What the report says of the questions and of the model.
        trained: The samples that the model was trained on.
    """

    questions: Sequence["Question"]
    name: str
    report: PlainTable
    trained: "TrainedSamples"


def _read(opened: "OpenModel", data: Sequence[Path], options: argparse.Namespace) -> _Asked:
    """Read the questions, and tell which of them the model was trained on.

    Raises:
        UserError: A file or the folder of images cannot be used.
    """
    from neva_model.evaluation.questions import read_questions
    from neva_model.evaluation.trained import trained_samples

    recipes = [opened.recipe, *recipes_of_run(str(opened.source))]
    trained_folder = _image_folder_of(recipes)
    folder = options.image_folder or _default_folder(trained_folder, data)
    questions = read_questions(opened, data, folder)
    assert opened.template is not None, "questions need one"
    files = [DataFile(path, opened.template, folder or path.parent) for path in data]
    _tell_of_repeats(questions)
    _tell_of_images(questions)
    trained = trained_samples(recipes, files, opened.source)
    known = _trained_questions(questions, trained)
    digests, template = digests_of(data), opened.template.name
    report = {
        "model": str(opened.source),
        "data": _data_text(data),
        **known,
        "digests": [digests[path] for path in data],
        "conv_template": template,
        "image_folder": _folder_text(folder),
        "training": _training(opened, trained_folder),
    }
    return _Asked(questions, _kept_name(opened.source, digests, folder, template), report, trained)


def _tell_of_repeats(questions: Sequence["Question"]) -> None:
    """Print a note if many questions are asked more than once, such as those of a file and a copy of it."""
    asked = [(tuple(one.prompt.tokens), one.reference, one.image and one.image.absolute()) for one in questions]
    if said := repeats_text(asked, "question"):
        first = _place(questions[first_copy(asked) or 0])
        tell("note", f"{said}: each of them counts; the first is {first}")


def _tell_of_images(questions: Sequence["Question"]) -> None:
    """Print a note if images are not used as their files show them."""
    images = dict.fromkeys(question.image for question in questions if question.image is not None)
    looks = {image: look for image in images if (look := look_into(image)).is_read}
    odd = {
        "turned": [image for image, look in looks.items() if look.is_turned],
        "several": [image for image, look in looks.items() if look.has_several],
    }
    for kind, said in looks_texts(len(odd["turned"]), len(odd["several"]), len(looks)).items():
        tell("note", f"{said}; the first is {odd[kind][0]}")


def _place(question: "Question") -> str:
    return f"sample {question.sample} of {question.data_path}"


def _data_text(data: Sequence[Path]) -> str:
    """Return the paths of data files in a form that `--data` takes from any folder."""
    names = [str(path.absolute()) for path in data]
    return names[0] if len(names) == 1 else format_value(names)


def _nearest_above(file: Path) -> Path:
    """Return the folder of a file, or its nearest existing parent if it does not exist yet."""
    return next(folder for folder in file.absolute().parents if path_is(folder))


def _trained_questions(questions: Sequence["Question"], trained: "TrainedSamples") -> dict[str, bool | int | None]:
    """Print notes on questions that the model was trained on, and return the entries of the report about them.

    The report says that there are none, or how many there are, only if every training file could be compared.
    """
    of_files = [question for question in questions if str(question.data_path) in trained.files]
    others = [question for question in questions if (question.data_path, question.sample) in trained.places]
    for path in trained.changed:
        tell("note", f"{path}: is newer than the last start that trained the model: what it held then is not known")
    if trained.files:
        tell("note", f"{', '.join(trained.files)}: {TRAINED_ON}")
    if others:
        said = shared_text(len(others), how_many(len(questions), "question"), at_least=not trained.is_complete)
        tell("note", f"{said}: {NOTHING_NEW}; the first is {_place(others[0])}, and the answers mark them all")
    count = len(of_files) + len(others)
    is_complete = trained.is_complete or count == len(questions)
    return {
        "training_data": True if count else False if is_complete else None,
        "training_questions": count if is_complete else None,
    }


def _require_places(directory: Path, predictions: Path) -> None:
    """Check, without writing, that results can be written beside a model and answers to a file."""
    kept = directory / EVALUATIONS
    for above in (directory, _nearest_above(predictions), *([kept] if path_is(kept) else [])):
        if not path_is(above, Path.is_dir) or not os.access(above, os.W_OK):
            raise RunError(f"{above}: the results cannot be written there: no such directory, or it is write-protected")


def _save(directory: Path, predictions: Path, name: str, report: Mapping[str, object], answers: str) -> None:
    """Write the results of an evaluation.

    Args:
        directory: Directory of the model.
        predictions: The file for the answers.
        name: Name of the files that are kept.
        report: The report.
        answers: The answers, as text.
    """
    from neva_model.evaluation.report import write_text

    kept = directory / EVALUATIONS
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    # A stage of a pipeline keeps its results, whatever its model is asked later.
    own = [(predictions.with_name(EVALUATION_FILE), text)] if stage_name(predictions.parent) is not None else []
    _make(kept)
    _make(predictions.parent)
    for path, content in (
        (kept / f"{name}.jsonl", answers),
        (kept / f"{name}.json", text),
        (predictions, answers),
        (directory / EVALUATION_FILE, text),
        *own,
    ):
        write_text(path, content)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror}") from None


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nemo-run evaluate", allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--image-folder", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--conv-template")
    parser.add_argument("--tokenizer")
    options = parser.parse_args(arguments)
    if options.batch_size < 1:
        raise UserError(f"--batch-size={options.batch_size}: expected at least 1")
    return options


def run_directory_of(source: Path) -> Path:
    """Return the run directory of a checkpoint, or the directory itself if it belongs to no run."""
    return source.parent.parent if source.parent.name == CHECKPOINTS else source


def _model_line(source: Path) -> str:
    """Return a line that names the evaluated checkpoint, or the export and the checkpoint that it was made from."""
    checkpoint = exported_checkpoint(source)
    return f"evaluating {source}" + ("" if checkpoint is None else f", exported from {checkpoint}")


def _image_folder_of(recipes: Sequence[Recipe]) -> Path | None:
    """Return the image folder that the newest recipe names, if any does."""
    named = [recipe.data.image_folder for recipe in recipes if isinstance(recipe.data, LlavaDataConfig)]
    return next((expand_path(folder) for folder in reversed(named) if folder is not None), None)


def _default_folder(trained: Path | None, data: Sequence[Path]) -> Path | None:
    """Return the image folder of the training if the images are not beside the questions."""
    if trained is None or have_images_beside(data):
        return None
    tell("note", f"the images are looked for in {trained}, as in the training; --image-folder names another folder")
    return trained


def _training(opened: "OpenModel", image_folder: Path | None) -> dict[str, str | None] | None:
    """Return settings of the training that an evaluation may change; `None` if they are unknown."""
    if opened.trained is None or opened.trained.conv_template is None:
        return None
    return {"conv_template": opened.trained.conv_template, "image_folder": _folder_text(image_folder)}


def _folder_text(folder: str | Path | None) -> str | None:
    return None if folder is None else str(expand_path(folder).absolute())


def _kept_name(source: Path, digests: Mapping[Path, str], image_folder: Path | None, template: str | None) -> str:
    """Return the name of the kept files: checkpoint and data, and a digest of everything that was asked."""
    asked = [source, _folder_text(image_folder), template, *(f"{path} {digest}" for path, digest in digests.items())]
    stem = re.sub(r"[^\w.-]+", "_", next(iter(digests)).name.partition(".")[0])[:_LONGEST_STEM]
    digest = text_digest("\n".join(ascii(str(part)) for part in asked)).rpartition(":")[2]
    return f"{source.name}-{stem}-{digest}" if source.parent.name == CHECKPOINTS else f"{stem}-{digest}"


def _answers(opened: "OpenModel", questions: Sequence["Question"], batch_size: int) -> list[str]:
    from neva_model.evaluation.answering import answer_questions
    from neva_model.evaluation.report import is_right

    answers = [""] * len(questions)
    right, total, progress = 0, len(questions), ProgressLine()
    numbered = answer_questions(opened, questions, batch_size=batch_size)
    for done, (number, answer) in enumerate(numbered, start=1):
        answers[number] = answer
        right += is_right(answer, questions[number].reference)
        line = f"{done:,} of {total:,} questions answered, {right / done:.2%} of them right"
        progress.show(line, is_last=done == total)
    return answers
