"""A projector beside another vision tower or language model than its run's is warned of, and no other one is."""

import json

import pytest

from neva_recipes.cli.main import main
from neva_recipes.config import build, recipe_to_yaml
from neva_recipes.plan.data.files import FileRules
from neva_recipes.storage.exports import TrainedWith, write_digests
from tests.plan.model_directories import write_model
from tests.plan.test_files import LANGUAGE, TOWER
from tests.plan.wrong_fields import make

ALWAYS = " data.tokenizer=owner/tokens"
VISION, LANGUAGE_FIELD = "model.vision.from_pretrained", "model.language.from_pretrained"
PROJECTOR = "model.projector.from_pretrained"
RANDOM_TOWER = f"{PROJECTOR}=stage-1, {VISION}=random"
RANDOM_LANGUAGE = f"{PROJECTOR}=stage-1, {LANGUAGE_FIELD}=random"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_run(folder, name, recipe, *earlier):
    """Write a run with a checkpoint; `earlier` are the recipes it had before."""
    run = folder / name
    checkpoint = run / "checkpoints" / "step-00000010"
    checkpoint.mkdir(parents=True)
    for number, old in enumerate(earlier, 1):
        (run / f"recipe.{number}.yaml").write_text(recipe_to_yaml(old))
    for place in (run, checkpoint):
        (place / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    (checkpoint / "weights.pt").write_text("12345")
    (checkpoint / "checkpoint.json").write_text(json.dumps({"step": 10, "files": {"weights.pt": 5}}))


def first(overrides=""):
    return make("llava.pretrain tiny", overrides + ALWAYS)


def second(overrides="", name="llava.finetune tiny"):
    return make(name, f"{PROJECTOR}=stage-1 {overrides}{ALWAYS}")


def told(recipe):
    return [one.line() for one in FileRules().check(build(recipe)) if one.code == "projector-mismatch"]


def write_text_runs(folder):
    """Write two language models of one seed, and one that has been trained from the first."""
    for name, overrides in (("text", ""), ("other-text", ""), ("more-text", f" {LANGUAGE_FIELD}=text")):
        write_run(folder, name, make("gpt.pretrain tiny", ALWAYS + overrides))


BESIDE = {
    "drawn alike": ("", "", []),
    "another seed": (
        "",
        "trainer.seed=7",
        [
            f"{RANDOM_TOWER}, trainer.seed=7: the projector was trained beside another random vision tower "
            f"(trainer.seed=1234); set {VISION}=stage-1",
            f"{RANDOM_LANGUAGE}, trainer.seed=7: the projector was trained beside another random language model "
            f"(trainer.seed=1234); set {LANGUAGE_FIELD}=stage-1",
        ],
    ),
    "another seed, but of one run": ("", f"trainer.seed=7 {VISION}=stage-1 {LANGUAGE_FIELD}=stage-1", []),
    "one of its checkpoints": (
        "",
        f"trainer.seed=7 {VISION}=./stage-1/checkpoints/step-00000010 {LANGUAGE_FIELD}=stage-1",
        [],
    ),
    "another random shape": (
        "",
        "model.vision.vision_select_layer=-1",
        [
            f"{RANDOM_TOWER}, model.vision.vision_select_layer=-1: the projector was trained beside another random "
            f"vision tower (model.vision.vision_select_layer=-2); set {VISION}=stage-1 "
            "model.vision.vision_select_layer=-2",
        ],
    ),
    "another spread": (
        "model.language.init_method_std=0.01",
        "",
        [
            f"{RANDOM_LANGUAGE}, model.language.init_method_std=0.02: the projector was trained beside another random "
            f"language model (model.language.init_method_std=0.01); set {LANGUAGE_FIELD}=stage-1"
        ],
    ),
    "another device": (
        "trainer.accelerator=cpu model.language.from_pretrained=text",
        "trainer.accelerator=gpu model.language.from_pretrained=text",
        [
            f"{RANDOM_TOWER}, trainer.accelerator=gpu: the projector was trained beside another random vision tower "
            f"(trainer.accelerator=cpu); set {VISION}=stage-1"
        ],
    ),
    "a device that is not known": ("trainer.accelerator=cpu", "", []),
    "a language model of a run": (
        f"{LANGUAGE_FIELD}=text",
        "",
        [f"{RANDOM_LANGUAGE}: the projector was trained beside the language model of text; set {LANGUAGE_FIELD}=text"],
    ),
    "the same language model": (f"{LANGUAGE_FIELD}=text", f"{LANGUAGE_FIELD}=./text", []),
    "one trained from it": (f"{LANGUAGE_FIELD}=text", f"{LANGUAGE_FIELD}=more-text", []),
    "one it was trained from": (f"{LANGUAGE_FIELD}=more-text", f"{LANGUAGE_FIELD}=text", []),
    "two trained from one seed": (
        f"{LANGUAGE_FIELD}=text",
        f"{LANGUAGE_FIELD}=other-text",
        [
            f"{PROJECTOR}=stage-1, {LANGUAGE_FIELD}=other-text: the projector was trained beside the language model of "
            f"text; set {LANGUAGE_FIELD}=text"
        ],
    ),
    "trained in the run of the projector": (
        "model.language.freeze=false",
        "",
        [
            f"{RANDOM_LANGUAGE}: the projector was trained beside the language model that its run has trained; "
            f"set {LANGUAGE_FIELD}=stage-1"
        ],
    ),
    "what its run took its language model from": (
        f"{LANGUAGE_FIELD}=text model.language.freeze=false",
        f"{LANGUAGE_FIELD}=text",
        [
            f"{PROJECTOR}=stage-1, {LANGUAGE_FIELD}=text: the projector was trained beside the language model that its "
            f"run has trained; set {LANGUAGE_FIELD}=stage-1"
        ],
    ),
    "the language model of its run": (
        f"{LANGUAGE_FIELD}=text model.language.freeze=false",
        f"{LANGUAGE_FIELD}=stage-1",
        [],
    ),
    "a run that left the projector as it was": (
        f"{LANGUAGE_FIELD}=text model.language.freeze=false model.projector.freeze=true {PROJECTOR}=random",
        f"{LANGUAGE_FIELD}=text",
        [],
    ),
    "a published tower": (
        f"{VISION}=owner/clip",
        "",
        [f"{RANDOM_TOWER}: the projector was trained beside the vision tower of owner/clip; set {VISION}=owner/clip"],
    ),
    "the same published tower": (f"{VISION}=owner/clip", f"{VISION}=owner/clip", []),
    "a copy of it": (f"{VISION}=owner/clip", f"{VISION}=copies/clip", []),
    "another published tower": (
        f"{VISION}=owner/clip",
        f"{VISION}=owner/other",
        [
            f"{PROJECTOR}=stage-1, {VISION}=owner/other: the projector was trained beside the vision tower of "
            f"owner/clip; set {VISION}=owner/clip"
        ],
    ),
    "a published tower instead of a random one": (
        "",
        f"{VISION}=owner/clip",
        [
            f"{PROJECTOR}=stage-1, {VISION}=owner/clip: the projector was trained beside the random vision tower of "
            f"its run; nemo-run rerun stage-1 {VISION}=owner/clip trains it beside this one"
        ],
    ),
    "a trained language model instead of a random one": (
        "",
        f"{LANGUAGE_FIELD}=text",
        [
            f"{PROJECTOR}=stage-1, {LANGUAGE_FIELD}=text: the projector was trained beside the random language model "
            f"of its run; nemo-run rerun stage-1 {LANGUAGE_FIELD}=text trains it beside this one"
        ],
    ),
    "a trained one of another shape": (
        "",
        f"{PROJECTOR}=stage-1/checkpoints/step-00000010 {LANGUAGE_FIELD}=text model.language.kv_channels=64",
        [
            f"{PROJECTOR}=stage-1/checkpoints/step-00000010, {LANGUAGE_FIELD}=text: the projector was trained beside "
            f"the random language model of its run; nemo-run rerun stage-1 {LANGUAGE_FIELD}=text "
            "model.language.kv_channels=64 trains it beside this one"
        ],
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_what_stands_beside_a_projector(case, folder):
    its_run, overrides, expected = BESIDE[case]
    write_text_runs(folder)
    (folder / "copies").mkdir()
    write_model(folder / "copies" / "clip", TOWER)
    write_run(folder, "stage-1", first(its_run))
    assert told(second(overrides)) == expected


def test_that_random_weights_are_meant_silences_nothing(folder):
    write_run(folder, "stage-1", first(f"{LANGUAGE_FIELD}=none {VISION}=none trainer.seed=7"))
    fields = (f"{VISION}=random {LANGUAGE_FIELD}=random", f"{VISION}=none {LANGUAGE_FIELD}=none")
    assert [len(told(second(overrides))) for overrides in fields] == [2, 2]


def test_published_sizes_fit_as_they_are(folder):
    write_run(folder, "stage-1", make("llava.pretrain"))
    assert told(second(name="llava.finetune")) == []
    (line,) = told(second(f"{LANGUAGE_FIELD}=owner/llama", name="llava.finetune"))
    assert line.endswith(
        f"beside the language model of lmsys/vicuna-7b-v1.5; set {LANGUAGE_FIELD}=lmsys/vicuna-7b-v1.5"
    )


def test_a_part_is_followed_through_the_runs_that_took_it(folder):
    write_run(folder, "stage-1", first("trainer.seed=7"))
    both = f"{VISION}=stage-1 {LANGUAGE_FIELD}=stage-1"
    write_run(folder, "stage-2", second(both))
    write_run(folder, "stage-3", second(f"{VISION}=stage-2 {LANGUAGE_FIELD}=stage-2"))
    assert told(second(f"{VISION}=stage-3 {LANGUAGE_FIELD}=stage-3")) == []
    # stage-3 has the tower of stage-1, which its seed draws again, and a language model that has been trained.
    last = second(f"{PROJECTOR}=stage-3 trainer.seed=7")
    assert [line.partition(": ")[0] for line in told(last)] == [f"{PROJECTOR}=stage-3, {LANGUAGE_FIELD}=random"]


def test_a_command_that_mends_it_is_the_same_in_a_pipeline(folder):
    write_text_runs(folder)
    write_run(folder, "stage-1", first())
    (finding,) = (
        one for one in FileRules().check(build(second(f"{LANGUAGE_FIELD}=text"))) if one.code == "projector-mismatch"
    )
    command = f"nemo-run rerun stage-1 {LANGUAGE_FIELD}=text trains it beside this one"
    assert finding.line("finetune").endswith(f"; {command}")


def test_runs_that_name_each_other_end_the_search(folder):
    write_run(folder, "stage-1", first(f"{VISION}=stage-2 {LANGUAGE_FIELD}=stage-2"))
    write_run(folder, "stage-2", first(f"{VISION}=stage-1 {LANGUAGE_FIELD}=stage-1"))
    assert [line.rpartition("; ")[2] for line in told(second())] == [
        f"set {VISION}=stage-2",
        f"set {LANGUAGE_FIELD}=stage-2",
    ]


def test_a_run_has_the_weights_of_the_recipe_it_began_with(folder):
    write_run(folder, "stage-1", first("trainer.seed=7"), first(), first("trainer.seed=8"))
    assert told(second()) == []
    assert len(told(second("trainer.seed=7"))) == 2


def test_a_way_out_that_leads_nowhere_is_not_named(folder):
    write_run(folder, "stage-1", first(f"{VISION}=gone/clip {LANGUAGE_FIELD}=gone"))
    # What its run began with is not here any more; the run has it.
    assert [line.rpartition("; ")[2] for line in told(second())] == [
        f"set {VISION}=gone/clip",
        f"set {LANGUAGE_FIELD}=stage-1",
    ]


@pytest.mark.parametrize("lost", ["recipe.yaml", "whole"])
def test_what_cannot_be_compared_is_passed_over(lost, folder):
    write_run(folder, "stage-1", first())
    if lost == "whole":
        (folder / "stage-1").rename(folder / "moved")
    else:
        (folder / "stage-1" / lost).unlink()
    assert told(second("trainer.seed=7")) == []


def test_a_run_without_a_projector_is_an_error_and_no_warning(folder):
    write_text_runs(folder)
    assert told(second(f"{PROJECTOR}=text")) == []


def test_random_weights_beside_a_published_projector(folder):
    fields = {"model_type": "llava", "text_config": LANGUAGE, "vision_config": TOWER, "image_token_index": 300}
    write_model(folder / "llava", fields)
    overrides = f"{PROJECTOR}=llava model.language.vocab_size=512"
    beside = "the projector was trained beside another {} than a random one; set {}=llava"
    assert told(second(overrides)) == [
        f"{PROJECTOR}=llava, {field}=random: {beside.format(name, field)}"
        for name, field in (("vision tower", VISION), ("language model", LANGUAGE_FIELD))
    ]
    assert told(second(f"{overrides} {VISION}=llava {LANGUAGE_FIELD}=owner/other")) == []


def test_an_export_stands_for_its_run(folder):
    write_text_runs(folder)
    write_run(folder, "stage-1", first("trainer.seed=7"))
    write_run(folder, "other", first("trainer.seed=7"))
    fields = {"model_type": "llava", "text_config": LANGUAGE, "vision_config": TOWER, "image_token_index": 300}
    write_model(folder / "exported", fields)
    write_digests(folder / "exported", folder / "stage-1" / "checkpoints" / "step-00000010", TrainedWith("v1"))
    overrides = f"{PROJECTOR}=exported"
    # Drawn alike, or from the run or its export, in whichever way round.
    assert told(second(f"{overrides} trainer.seed=7")) == []
    for place in ("stage-1", "exported"):
        assert told(second(f"{overrides} {VISION}={place} {LANGUAGE_FIELD}={place}")) == []
        assert told(second(f"{VISION}=exported {LANGUAGE_FIELD}=exported {PROJECTOR}={place}")) == []
    vision, _ = told(second(overrides))
    assert vision == (
        f"{PROJECTOR}=exported, {VISION}=random, trainer.seed=1234: the projector was trained beside another random "
        f"vision tower (trainer.seed=7); set {VISION}=exported"
    )
    (trained,) = told(second(f"{overrides} {VISION}=exported {LANGUAGE_FIELD}=text"))
    assert trained.endswith(f"; nemo-run rerun {folder}/stage-1 {LANGUAGE_FIELD}=text trains it beside this one")
    # The name of a run that is gone is still known, and nothing else of it.
    (folder / "stage-1").rename(folder / "moved")
    assert len(told(second(overrides))) == 2
    assert told(second(f"{overrides} {VISION}=owner/other {LANGUAGE_FIELD}=owner/other")) == []


def test_a_dry_run_tells_of_it(folder, capsys):
    write_run(folder, "stage-1", first())
    words = ["size=tiny", f"{PROJECTOR}=stage-1", f"{LANGUAGE_FIELD}=stage-1", "trainer.seed=7"]
    main(["llava.finetune", *words, "--dry-run"])
    shown = " ".join("".join(capsys.readouterr()).split())
    assert (
        f"warning: {RANDOM_TOWER}, trainer.seed=7: the projector was trained beside another random vision tower "
        f"(trainer.seed=1234); set {VISION}=stage-1"
    ) in shown
    assert "beside another random language model" not in shown


LEFT = {
    "the projector of stage 1": (f"{LANGUAGE_FIELD}=stage-2 {VISION}=stage-1", "stage-2"),
    "of a checkpoint": (f"{LANGUAGE_FIELD}=stage-2/checkpoints/step-00000010", "stage-2/checkpoints/step-00000010"),
    "through a run that froze the language model": (f"{LANGUAGE_FIELD}=frozen", "stage-2"),
    "its own": (f"{LANGUAGE_FIELD}=stage-2 {PROJECTOR}=stage-2", None),
    "its own, by another name": (f"{LANGUAGE_FIELD}=stage-2 {PROJECTOR}=./stage-2/checkpoints/step-00000010", None),
    "its own, beside its export": (f"{LANGUAGE_FIELD}=exported {PROJECTOR}=stage-2", None),
    "its own, exported": (f"{LANGUAGE_FIELD}=stage-2 {PROJECTOR}=exported", None),
    "of an export": (f"{LANGUAGE_FIELD}=exported", "exported"),
    "its own, trained since": (f"{LANGUAGE_FIELD}=stage-2 {PROJECTOR}=stage-3", None),
    "a new one beside it": (f"{LANGUAGE_FIELD}=stage-2 {PROJECTOR}=frozen", None),
    "a random one": (f"{LANGUAGE_FIELD}=stage-2 {PROJECTOR}=none", None),
    "a frozen projector": (f"{LANGUAGE_FIELD}=held", None),
    "a frozen language model": (f"{LANGUAGE_FIELD}=stage-1", None),
    "trained alone since": (f"{LANGUAGE_FIELD}=more-text", None),
}


@pytest.mark.parametrize("case", LEFT)
def test_a_projector_that_a_finetuning_leaves_behind(case, folder):
    overrides, left = LEFT[case]
    both = f"{VISION}=stage-1 {LANGUAGE_FIELD}="
    write_run(folder, "stage-1", first())
    write_run(folder, "stage-2", second(f"{both}stage-1"))
    write_run(folder, "stage-3", second(f"{both}stage-2 {PROJECTOR}=stage-2"))
    write_run(folder, "frozen", first(f"{both}stage-2"))
    write_run(folder, "held", second(f"{both}stage-1 model.projector.freeze=true"))
    write_run(folder, "more-text", make("gpt.pretrain tiny", f"{LANGUAGE_FIELD}=stage-2{ALWAYS}"))
    fields = {"model_type": "llava", "text_config": LANGUAGE, "vision_config": TOWER, "image_token_index": 300}
    write_model(folder / "exported", fields)
    write_digests(folder / "exported", folder / "stage-2" / "checkpoints" / "step-00000010", TrainedWith("v1"))
    lines = [one.line() for one in FileRules().check(build(second(overrides))) if one.code == "projector-left-behind"]
    source = overrides.split()[0]
    assert lines == [
        f"{PROJECTOR}=stage-1, {source}: the language model was trained in {left} together with its projector, and "
        f"another projector is taken; set {PROJECTOR}={left}"
    ] * (left is not None)
