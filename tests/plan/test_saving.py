"""A warning about long runs that save nothing before their end."""

import pytest

from neva_recipes.config import CheckpointConfig, build
from neva_recipes.plan import plan
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.saving_check import check_saving
from tests.plan.wrong_fields import make

CODE = "saved-at-end-only"
EVERY, MINUTES = "checkpoint.every_n_train_steps", "checkpoint.train_time_interval_minutes"
ON_CPU = "trainer.accelerator=cpu "
MONITORED = "data.validation_data_path=v checkpoint.monitor=val_loss"


def told(recipe):
    return [finding for finding in plan(recipe).findings if finding.code == CODE]


@pytest.mark.parametrize(
    ("name", "overrides", "steps", "remedies"),
    [
        ("gpt.pretrain tiny", f"{ON_CPU}trainer.max_steps=1000 {EVERY}=1000", "1,000", [{EVERY: 100}, {MINUTES: 30.0}]),
        ("gpt.pretrain tiny", f"{ON_CPU}trainer.max_steps=4000 {EVERY}=none", "4,000", [{EVERY: 400}, {MINUTES: 30.0}]),
        # 300 steps of a large model take hours.
        ("gpt.pretrain", "trainer.max_steps=300", "300", [{EVERY: 30}, {MINUTES: 30.0}]),
        (
            "gpt.pretrain tiny",
            f"{ON_CPU}trainer.max_steps=1000 {EVERY}=1000 trainer.val_check_interval=50 {MONITORED}",
            "1,000",
            [{EVERY: 50}, {MINUTES: 30.0}],
        ),
        # Checkpoints between would have no validation to be ranked by, which another warning tells of.
        (
            "gpt.pretrain tiny",
            f"{ON_CPU}trainer.max_steps=1000 {EVERY}=1000 {MONITORED}",
            "1,000",
            [{MINUTES: 30.0}],
        ),
    ],
)
def test_a_long_run_that_saves_at_its_end_only(name, overrides, steps, remedies):
    recipe = build(make(name, overrides))
    (finding,) = told(recipe)
    assert finding.severity == "warning"
    assert (
        finding.message
        == f"nothing is saved before the end, after {steps} steps: a failure on the way loses all of them"
    )
    assert [dict(remedy) for remedy in finding.remedies] == remedies
    for remedy in remedies:
        assert told(with_values(recipe, remedy)) == []


def test_a_run_of_few_steps_that_take_hours_saves_each_of_them():
    recipe = build(make("gpt.pretrain tiny", f"{ON_CPU}trainer.max_steps=5 {EVERY}=none"))
    (finding,) = check_saving(recipe, 5, 2.0)
    assert [dict(remedy) for remedy in finding.remedies] == [{EVERY: 1}, {MINUTES: 30.0}]
    assert len(check_saving(recipe, 2, 2.0)) == 1
    assert check_saving(recipe, 1, 2.0) == check_saving(recipe, 0, 2.0) == []  # there is no way to save on


@pytest.mark.parametrize(
    ("monitor", "top", "kept"),
    [(None, 1, True), (None, 3, True), (None, 0, False), (None, -1, False), ("val_loss", 1, False)],
)
def test_the_best_checkpoint_is_kept_besides_those_ranked_by_step(monitor, top, kept):
    assert CheckpointConfig(monitor=monitor, save_top_k=top).keeps_best is kept


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("gpt.pretrain tiny", f"{ON_CPU}trainer.max_steps=999 {EVERY}=none"),
        ("gpt.pretrain tiny", f"trainer.max_steps=300 {EVERY}=none"),
        ("gpt.pretrain tiny", f"{ON_CPU}trainer.max_steps=4000 {EVERY}=3999"),
        ("gpt.pretrain tiny", f"{ON_CPU}trainer.max_steps=4000 {EVERY}=none {MINUTES}=10"),
        ("llava.finetune", f"{EVERY}=none data.validation_data_path=v trainer.val_check_interval=100"),
        ("llava.finetune", f"{EVERY}=none checkpoint.save_top_k=0 checkpoint.save_last=false"),  # `nothing-kept`
    ],
)
def test_no_word_on_short_runs_and_on_those_that_save(name, overrides):
    assert told(build(make(name, overrides))) == []
