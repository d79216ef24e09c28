"""Every field of a recipe has its answer when a run goes on; tests/training/test_changed_fields.py holds it to runs."""

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from neva_recipes import gpt, llava
from neva_recipes.config import CheckpointError, ConfigNode, Recipe, build, format_value, node_types, set_field
from neva_recipes.plan.findings import field_value
from neva_recipes.plan.resuming import (
    EFFECTIVE,
    REFUSED,
    UNUSED,
    changed_fields,
    effect_of,
    require_resumable,
    resume_notes,
)

CHECKPOINT = Path("/runs/one/checkpoints/step-00000002")


def paths(cls: type[ConfigNode] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every field of the dataclasses that recipes are made of."""
    types = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        nodes = node_types(types[field.name])
        if not nodes:
            yield prefix + field.name
        for node in nodes:
            yield from paths(node, f"{prefix}{field.name}.")


GROUPS = {
    "model.vision",
    "model.projector",
    "model.language.rope",
    "model.language.lora",
    "model.vision.lora",
    "data.class",
}
"""What can be there or not, or be of another kind."""


def test_the_table_has_every_field_once() -> None:
    table = [*REFUSED, *UNUSED, *EFFECTIVE]
    assert len(table) == len(set(table))
    assert set(table) == {*paths(), *GROUPS}


def recipe(*changes: str, text: bool = False) -> Recipe:
    made = (gpt.pretrain if text else llava.finetune)("tiny")
    for change in ("trainer.max_steps=10", "trainer.max_epochs=none", *changes):
        set_field(made, *change.split("=", 1))
    return build(made)


def made_groups(path: str) -> tuple[str, ...]:
    """The fields that make the group which a path is, or is in, where a recipe has none."""
    groups = ("model.language.rope.kind=yarn", "model.language.lora.kind=lora", "model.vision.lora.kind=lora")
    return tuple(field for field in groups if f"{path}.".startswith(field.removesuffix(field.rpartition(".")[2])))


@pytest.mark.parametrize("path", sorted(REFUSED))
def test_what_is_refused(path: str) -> None:
    saved = recipe(*made_groups(path))
    if path == "data.class":
        other = recipe(text=True)
        other = dataclasses.replace(saved, data=other.data)
    elif path in GROUPS:
        other = recipe(f"{path}=none")
    elif path == "optim.lr_of":
        other = recipe("optim.lr_of.projector=1e-5")
    else:
        other = recipe(*made_groups(path), f"{path}={OTHER_VALUES[path]}")
    assert [change.path for change in changed_fields(saved, other)] == [path]
    with pytest.raises(CheckpointError, match=rf"{CHECKPOINT}: {path} is .* there and .* in the recipe: .*") as raised:
        require_resumable(CHECKPOINT, saved, other, 16, None)
    if path in GROUPS or path == "optim.lr_of":  # no value can be typed that makes a group
        assert str(raised.value).endswith("; go on with the recipe of the run, or start a new run with yours")
    else:
        there, here = (field_value(each, path) for each in (saved, other))
        assert str(raised.value).endswith(
            f"; go on with {path}={format_value(there)}, or start a new run: nemo-run rerun /runs/one "
            f"{path}={format_value(here)}"
        )


@pytest.mark.parametrize("change", ["trainer.seed=7", "model.language.init_method_std=0.5"])
def test_what_random_weights_beside_adapters_are_drawn_with(change: str) -> None:
    # The checkpoint holds adapters alone: another seed would put other weights beside them.
    adapters, path = "model.language.lora.rank=2", change.partition("=")[0]
    with pytest.raises(CheckpointError, match="that no file holds are drawn with it; go on with "):
        require_resumable(CHECKPOINT, recipe(adapters), recipe(adapters, change), 16, None)
    with pytest.raises(CheckpointError, match=path):
        require_resumable(CHECKPOINT, recipe(adapters), recipe(adapters, change, f"{HELD}base"), 16, None)
    stored = (adapters, f"{HELD}base", "model.vision.from_pretrained=base")
    require_resumable(CHECKPOINT, recipe(*stored), recipe(*stored, change), 64, None)
    require_resumable(CHECKPOINT, recipe(), recipe(change), 64, None)


HELD = "model.language.from_pretrained="


def test_a_new_run_is_advised_with_all_changes() -> None:
    saved, other = recipe(), recipe("model.language.num_layers=3", "optim.lr=0.5", "trainer.max_steps=20")
    with pytest.raises(CheckpointError) as raised:
        require_resumable(CHECKPOINT, saved, other, 16, None)
    words = {"model.language.num_layers=3", "optim.lr=0.5", "trainer.max_steps=20"}
    assert set(str(raised.value).rpartition("nemo-run rerun /runs/one ")[2].split()) == words


OTHER_VALUES = {
    "model.language.family": "other",
    "model.language.num_layers": "3",
    "model.language.hidden_size": "64",
    "model.language.ffn_hidden_size": "96",
    "model.language.num_attention_heads": "2",
    "model.language.num_query_groups": "1",
    "model.language.kv_channels": "64",
    "model.language.vocab_size": "700",
    "model.language.max_position_embeddings": "4096",
    "model.language.rotary_base": "5e5",
    "model.language.rope_scaling_factor": "8",
    "model.language.rope.kind": "linear",
    **{f"model.language.rope.{name}": "2" for name in ("factor", "attention_factor", "beta_fast", "beta_slow")},
    **{f"model.language.rope.{name}": "0.7" for name in ("mscale", "mscale_all_dim", "partial_rotary_factor")},
    **{f"model.language.rope.{name}": "2" for name in ("low_freq_factor", "high_freq_factor")},
    **{f"model.language.rope.{name}": "1,2.5" for name in ("short_factor", "long_factor")},
    "model.language.rope.original_max_position_embeddings": "64",
    "model.language.rope.truncate": "false",
    "model.language.layernorm_epsilon": "1e-6",
    "model.language.sliding_window": "64",
    "model.language.share_embeddings_and_output_weights": "true",
    "model.language.freeze": "true",
    "model.language.quantize": "nf4",
    "model.vision.vision_model_type": "siglip",
    "model.vision.num_layers": "3",
    "model.vision.hidden_size": "64",
    "model.vision.ffn_hidden_size": "96",
    "model.vision.num_attention_heads": "2",
    "model.vision.image_size": "28",
    "model.vision.position_image_size": "28",
    "model.vision.patch_size": "7",
    "model.vision.hidden_act": "gelu",
    "model.vision.layernorm_epsilon": "1e-6",
    "model.vision.vision_select_layer": "-1",
    "model.vision.vision_select_feature": "cls_patch",
    "model.vision.freeze": "false",
    **{f"model.{part}.lora.kind": "dora" for part in ("language", "vision")},
    **{f"model.{part}.lora.rank": "3" for part in ("language", "vision")},
    **{f"model.{part}.lora.alpha": "5" for part in ("language", "vision")},
    **{f"model.{part}.lora.target_modules": "q_proj" for part in ("language", "vision")},
    **{f"model.{part}.lora.layers": "1" for part in ("language", "vision")},
    "model.projector.mm_projector_type": "linear",
    "model.projector.freeze": "true",
    "model.use_im_start_end": "true",
    "parallel.use_distributed_optimizer": "false",
    "precision.precision": "bf16",
}


def test_grouped_batches_stay_whole() -> None:
    grouped = ("data.group_by_modality_length=true", "data.global_batch_size=8")
    saved, other = recipe(*grouped), recipe(grouped[0], "data.global_batch_size=12", "data.micro_batch_size=1")
    require_resumable(CHECKPOINT, saved, other, 24, None)
    with pytest.raises(
        CheckpointError, match=r"16 samples .* batches of 12.*: set data\.global_batch_size=8 or (.*)$"
    ) as told:
        require_resumable(CHECKPOINT, saved, other, 16, None)
    # What it says to do helps.
    grouped = recipe("data.group_by_modality_length=true", "data.global_batch_size=8")
    require_resumable(CHECKPOINT, saved, grouped, 16, None)
    ungrouped = ("data.group_by_modality_length=false", "data.global_batch_size=12", "data.micro_batch_size=1")
    assert str(told.value).endswith(f" or {ungrouped[0]}")
    require_resumable(CHECKPOINT, saved, recipe(*ungrouped), 16, None)
    # A run that was not grouped may have changed its batches on the way: its last size does not help either.
    with pytest.raises(CheckpointError, match=r": set data\.group_by_modality_length=false$"):
        require_resumable(CHECKPOINT, recipe("data.global_batch_size=8"), other, 28, None)


def test_fields_that_may_do_nothing() -> None:
    fp8 = recipe("precision.precision=bf16", "precision.fp8=hybrid")
    assert effect_of("precision.fp8_margin", recipe(), recipe()).kind == "without effect"
    assert effect_of("precision.fp8_margin", fp8, fp8).kind == "effective"
    constant = recipe("optim.lr_decay_style=constant")
    assert effect_of("optim.min_lr", constant, constant).kind == "without effect"


def notes(saved: Recipe, other: Recipe, step: int = 10, lr: float = 3.0153689e-5) -> list[str]:
    return resume_notes(saved, other, step=step, metrics={"lr": lr})


def test_a_jump_of_the_learning_rate_is_told_with_both_values() -> None:
    schedule = ("optim.lr=1e-3", "optim.warmup_ratio=0", "optim.min_lr=1e-6")
    saved = recipe(*schedule)
    # By hand: a cosine of 20 steps is at its middle after ten.
    assert notes(saved, recipe(*schedule, "trainer.max_steps=20")) == [
        "changed: trainer.max_steps=20 (it was 10)",
        "learning rate: 3.02e-05 at step 10, 0.0005 at step 11: the schedule has the length of the run, 20 steps "
        "instead of 10; optim.lr_decay_steps=10 keeps the old one, optim.min_lr=1e-06 from step 10 on",
    ]
    # A shorter run ends before the old length does: by hand, a cosine of 8 steps is 0.854 of its height after two.
    assert notes(saved, recipe(*schedule, "trainer.max_steps=8"), step=2, lr=9.05e-4)[-1] == (
        "learning rate: 0.000905 at step 2, 0.000854 at step 3: the schedule has the length of the run, 8 steps "
        "instead of 10; optim.lr_decay_steps=10 keeps the old one"
    )
    kept = recipe(*schedule, "trainer.max_steps=20", "optim.lr_decay_steps=10")
    assert [line for line in notes(saved, kept) if "learning rate" in line] == []
    # What a user asks for by itself needs no remedy.
    assert notes(saved, recipe(*schedule, "optim.lr=2e-3", "trainer.max_steps=10"), step=5)[-1] == (
        "learning rate: 3.02e-05 at step 5, 0.001 at step 6"
    )
    # With a longer run besides, both are told: the middle of the longer cosine, of twice the height.
    assert notes(saved, recipe(*schedule, "optim.lr=2e-3", "trainer.max_steps=20"))[-1] == (
        "learning rate: 3.02e-05 at step 10, 0.001 at step 11: optim.lr has changed, and the schedule has the length "
        "of the run, 20 steps instead of 10; optim.lr_decay_steps=10 keeps the old length, optim.min_lr=1e-06 from "
        "step 10 on"
    )
    fixed = (*schedule, "optim.lr_decay_steps=15")
    assert notes(recipe(*fixed), recipe(*fixed, "optim.lr=2e-3", "trainer.max_steps=20"))[-1] == (
        "learning rate: 3.02e-05 at step 10, 0.000501 at step 11"
    )
    constant = ("optim.lr_decay_style=constant",)
    assert notes(recipe(*constant), recipe(*constant, "trainer.max_steps=20"), lr=1e-3) == [
        "changed: trainer.max_steps=20 (it was 10)"
    ]
    assert notes(saved, saved) == []
