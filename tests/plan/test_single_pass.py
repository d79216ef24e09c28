"""A single pass that is shorter than the run is refused by the plan where the worker refuses it."""

import json

import pytest

from neva_model.data import count_samples
from neva_model.tokenizers import load_tokenizer
from neva_recipes.config import DataError
from neva_recipes.plan.data.files import check_files
from tests.data.inputs import byte_level_directory, make_recipe

__all__ = ["byte_level_directory", "make_recipe"]

TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]


@pytest.mark.parametrize("loader", ["single", "cyclic"])
@pytest.mark.parametrize(
    ("trainer", "batch", "remedies"),
    [
        ({"max_steps": 5}, 2, None),
        ({"max_steps": 6}, 2, ["cyclic", 5]),
        ({"max_steps": 1}, 11, None),
        ({"max_steps": 1}, 12, ["cyclic"]),
        ({"max_epochs": 1}, 11, None),
        ({"max_epochs": 1}, 12, ["cyclic"]),
    ],
)
def test_the_plan_refuses_what_the_worker_refuses(
    make_recipe, byte_level_directory, tmp_path, loader, trainer, batch, remedies
):
    (tmp_path / "chats.json").write_text(json.dumps([{"conversations": TURNS}] * 11))
    recipe = make_recipe(
        data_path=str(tmp_path / "chats.json"),
        tokenizer=str(byte_level_directory),
        dataloader_type=loader,
        global_batch_size=batch,
        trainer=trainer,
    )
    findings = [finding for finding in check_files(recipe) if finding.code == "short-pass"]
    tokenizer = load_tokenizer(str(byte_level_directory), vocab_size=None)
    if loader == "cyclic" or remedies is None:
        assert findings == []
        count_samples(recipe, tokenizer, run_dir=tmp_path / "run")
        return
    (finding,) = findings
    with pytest.raises(DataError) as raised:
        count_samples(recipe, tokenizer, run_dir=tmp_path / "run")
    assert finding.message in str(raised.value)
    assert [value for remedy in finding.remedies for value in remedy.values()] == remedies
