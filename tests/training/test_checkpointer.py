"""Which checkpoints are kept."""

import math

from hypothesis import given
from hypothesis import strategies as st

from neva_model.training.checkpointer import checkpoints_to_delete
from neva_recipes.config import CheckpointConfig

NAN = math.nan


def test_best_by_metric_and_newest() -> None:
    config = CheckpointConfig(save_top_k=2, monitor="val_loss", save_last=True)
    assert checkpoints_to_delete({10: 0.5, 20: 0.2, 30: 0.3, 40: 0.9}, config) == {10}


def test_larger_is_better() -> None:
    config = CheckpointConfig(save_top_k=1, monitor="val_loss", mode="max", save_last=False)
    assert checkpoints_to_delete({10: 0.5, 20: 0.2, 30: 0.3}, config) == {20, 30}


def test_without_metric_the_newest_are_best() -> None:
    config = CheckpointConfig(save_top_k=2, save_last=False)
    assert checkpoints_to_delete({10: NAN, 20: NAN, 30: NAN}, config) == {10}


def test_all_are_kept() -> None:
    assert checkpoints_to_delete({10: 1.0, 20: 2.0}, CheckpointConfig(save_top_k=-1)) == set()


def test_a_missing_metric_is_worst() -> None:
    config = CheckpointConfig(save_top_k=1, monitor="val_loss", save_last=False)
    assert checkpoints_to_delete({10: NAN, 20: 5.0}, config) == {10}


@given(
    values=st.dictionaries(st.integers(0, 1000), st.floats(allow_infinity=False), max_size=8),
    top_k=st.integers(0, 5),
    has_monitor=st.booleans(),
)
def test_deleting_as_they_come_keeps_what_deleting_at_the_end_keeps(
    values: dict[int, float], top_k: int, has_monitor: bool
) -> None:
    """Retention after every save equals one clean-up at the end, but for the newest of each moment."""
    config = CheckpointConfig(save_top_k=top_k, monitor="val_loss" if has_monitor else None)
    present: dict[int, float] = {}
    for step in sorted(values):
        present[step] = values[step]
        for old in checkpoints_to_delete(present, config):
            del present[old]
    assert set(values) - checkpoints_to_delete(values, config) <= set(present)
    assert len(present) <= top_k + 1
