"""A language model of a run goes with the tokenizer it was trained with: the plan and the worker say the same."""

from pathlib import Path

import pytest

from neva_model.checkpoints.information import CheckpointInformation, read_information
from neva_model.checkpoints.vocabulary import check_same_vocabulary
from neva_model.tokenizers import load_recipe_tokenizer, load_tokenizer
from neva_recipes.config import CheckpointError, build, recipe_to_yaml
from neva_recipes.plan.data.files import check_files
from neva_recipes.plan.origins.checkpoints import OtherVocabulary
from tests.plan.test_files import SPECIALS, field, world, write_tokenizer

__all__ = ["world"]


@pytest.fixture
def with_language_run(world):
    """A recipe whose language model is that of a run, which says which vocabulary it was trained with."""
    folder, recipe = world
    recipe.model.language.vocab_size = 600
    checkpoint = folder / "runs/stage-1/checkpoints/step-00000010"
    recipe.model.language.from_pretrained = None
    (checkpoint / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    digest = load_tokenizer("tokens", vocab_size=None).vocabulary_digest()
    information = CheckpointInformation(10, 0, {}, None, 1, 1, 1, has_average=False, vocabulary_digest=digest)
    information.write(checkpoint)
    recipe.model.language.from_pretrained = "runs/stage-1"
    write_tokenizer(folder / "other", [*SPECIALS, "<more>"])
    return folder, recipe


def copy_of_the_tokenizer(folder, recipe):
    write_tokenizer(folder / "copy")
    recipe.data.tokenizer = "copy"


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (field("data.tokenizer", "tokens"), None),
        (copy_of_the_tokenizer, None),
        (field("data.tokenizer", "owner/name"), None),
        (field("data.tokenizer", "other"), {"data.tokenizer": "tokens"}),
        (field("model.use_im_start_end", "true"), {"model.use_im_start_end": False}),
        (lambda *_: write_tokenizer(Path("tokens"), [*SPECIALS, "<more>"]), {}),
    ],
)
def test_a_tokenizer_that_the_language_model_was_not_trained_with(with_language_run, change, remedy):
    folder, recipe = with_language_run
    change(folder, recipe)
    findings = [finding for finding in check_files(build(recipe)) if finding.severity == "error"]
    if remedy is None:
        assert findings == []
        return
    (finding,) = findings
    assert finding.code == "other-vocabulary"
    assert finding.remedies == ((remedy,) if remedy else ())
    assert finding.line().endswith("it has changed since: put back the one of the training") is (remedy == {})
    # The worker, which has read both, says the same.
    checkpoint = Path("runs/stage-1/checkpoints/step-00000010")
    tokenizer = load_recipe_tokenizer(build(recipe))
    with pytest.raises(CheckpointError) as raised:
        check_same_vocabulary(checkpoint, read_information(checkpoint), build(recipe), tokenizer)
    ((field_set, value),) = remedy.items() or [("", "")]
    todo = (
        f"set {field_set}={str(value).lower()}" if remedy else "it has changed since: put back the one of the training"
    )
    assert str(raised.value) == f"{checkpoint}: {finding.message}: {todo}"


def test_a_tokenizer_of_the_training_that_is_gone_is_not_named_as_the_remedy():
    def line(tokenizer, **how):
        return OtherVocabulary("other words", {"data.tokenizer": tokenizer}).line(**how)

    assert line("owner/name") == "other words: set data.tokenizer=owner/name"
    assert (
        line("/gone/tok") == "other words: set data.tokenizer=PATH, where that of the training is now; it was /gone/tok"
    )
    assert line("/gone/tok", by_flag=True).startswith("other words: give --tokenizer PATH, where that of the training")
