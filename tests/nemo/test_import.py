"""Configurations become the recipes they should be, by hand, and every key of them is accounted for."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neva_recipes.cli.main import main
from neva_recipes.config import RecipeError, build, field_types
from neva_recipes.nemo import RULES, read_configuration, render, translate
from neva_recipes.nemo.rules import Configuration, Unusable
from neva_recipes.nemo.translation import GROUPS
from neva_recipes.plan import check_recipe
from neva_recipes.registry import find_recipe
from tests.nemo.expected import FINETUNE, LAUNCHER, LAUNCHER_WORDS, ODD, PRETRAIN
from tests.nemo.importing import CONFIGS

NEMO_RUN = Path(sys.executable).with_name("nemo-run")

CASES = {
    "pretrain.yaml": (["--name", "neva_7b_pretrain"], PRETRAIN),
    "finetune.yaml": ([], FINETUNE),
    "launcher.yaml": (LAUNCHER_WORDS, LAUNCHER),
}


def read(node, path):
    for name in path.split("."):
        node = getattr(node, name)
    return node


@pytest.mark.parametrize("config", CASES)
def test_the_recipe_is_the_one_worked_out_by_hand(config, import_nemo, folder):
    words, expected = CASES[config]
    code, _, err = import_nemo(config, *words)
    assert code == 0, err
    recipe = build(find_recipe(expected["name"], folder / "recipe.py").make())
    assert {path: read(recipe, path) for path in expected} == expected
    assert [finding.line() for finding in check_recipe(recipe) if finding.severity == "error"] == []


@pytest.mark.parametrize("config", CASES)
def test_fields_that_no_key_speaks_of_have_their_defaults(config, folder):
    words, expected = CASES[config]
    words = dict(word.split("=") for word in words if "=" in word)
    translation = translate(read_configuration(CONFIGS / config, words))
    recipe = build(translation.recipe("x"))
    towers = {f"model.vision.{name}" for name in field_types(GROUPS["model.vision"])}
    spoken_of = {*expected, *translation.settings, *towers}
    for group, cls in GROUPS.items():
        for name in field_types(cls):
            if f"{group}.{name}" not in {*spoken_of, *GROUPS}:
                assert read(recipe, f"{group}.{name}") == getattr(cls, name, {}), f"{group}.{name}"


def test_what_the_command_says_and_writes(folder):
    (folder / "neva.yaml").write_text((CONFIGS / "pretrain.yaml").read_text())
    done = subprocess.run([NEMO_RUN, "import-nemo", "neva.yaml"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout == (
        "recipe.py holds the recipe neva_7b_pretrain, and what became of every key; next:\n"
        "  nemo-run neva_7b_pretrain --recipes recipe.py --dry-run\n"
    )
    kinds = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert kinds[:-1] == ["left out", "left out", "assumed", "assumed", "NeMo's default", "cannot carry"]
    assert "\ncannot carry: model.mm_cfg.llm.from_pretrained=/weights/llama-2-7b-chat.nemo: " in done.stderr
    assert re.search(r"^\d+ keys: \d+ carried, \d+ need no setting, 3 named above$", done.stderr, re.MULTILINE)

    command = done.stdout.splitlines()[1].split()
    dry = subprocess.run([NEMO_RUN, *command[1:]], capture_output=True, text=True, timeout=60)
    assert dry.returncode == 0, dry.stderr
    assert "conv_template: llava_llama_2" in dry.stdout
    assert not (folder / "runs").exists()


def test_what_cannot_be_carried_stands_out(import_nemo, folder):
    code, _, err = import_nemo("odd.yaml")
    assert code == 0
    lines = [line.partition(": ")[2] for line in err.splitlines() if line.startswith("cannot carry: ")]
    assert {re.split("[= ]", line)[0] for line in lines} == ODD
    assert "unknown key: model.secret_sauce" in err
    assert "hunter2" not in err + (folder / "recipe.py").read_text()
    written = " ".join((folder / "recipe.py").read_text().replace("#", "").split())
    assert all(" ".join(line.split()) in written for line in lines)
    # What cannot be carried is at its default, and the recipe can still be looked at; its name is no Python name.
    recipe = build(find_recipe("imported", folder / "recipe.py").make())
    assert recipe.model.projector.mm_projector_type == "mlp2x_gelu"
    assert recipe.model.vision.from_pretrained is None
    assert (recipe.model.vision.patch_size, recipe.model.vision.hidden_size) == (16, 768)
    assert (recipe.trainer.max_steps, recipe.optim.lr_decay_steps) == (100, 50)


@pytest.mark.parametrize(
    ("key", "path", "value"),
    [
        ("model.hidden_dropout", "model.language.hidden_dropout", 0.1),
        ("model.attention_dropout", "model.language.attention_dropout", 0.1),
        ("model.share_embeddings_and_output_weights", "model.language.share_embeddings_and_output_weights", True),
        ("model.num_query_groups", "model.language.num_query_groups", 32),
        ("trainer.gradient_clip_val", "optim.clip_grad", 0.0),
        ("exp_manager.checkpoint_callback_params.save_top_k", "checkpoint.save_top_k", 3),
    ],
)
def test_a_value_of_nemo_for_a_key_that_is_not_there_is_named_so(key, path, value, folder, capfd):
    text = (CONFIGS / "pretrain.yaml").read_text()
    there, absent = text, re.sub(rf"^ *{key.rpartition('.')[2]}:.*\n", "", text, flags=re.MULTILINE)
    assert there != absent
    for name, config, is_said in (("there", there, False), ("absent", absent, True)):
        (folder / f"{name}.yaml").write_text(config)
        assert main(["import-nemo", f"{name}.yaml", "--output", f"{name}.py"]) == 0
        err = capfd.readouterr().err
        assert (f"NeMo's default: {path}={value}: {key} is not in the configuration\n" in err) == is_said
        written = " ".join((folder / f"{name}.py").read_text().replace("#", " ").split())
        assert (f"{key} (NeMo's default)" in written) == is_said
        recipe = build(find_recipe("neva_7b_pretrain", folder / f"{name}.py").make())
        assert read(recipe, path) == value or not is_said


def test_the_name_of_a_published_tower_brings_its_sizes(import_nemo, folder):
    name = "google/siglip2-large-patch16-384"
    code, _, _ = import_nemo("pretrain.yaml", f"model.mm_cfg.vision_encoder.from_pretrained={name}", "--name", "a")
    assert code == 0
    vision = build(find_recipe("a", folder / "recipe.py").make()).model.vision
    assert (vision.from_pretrained, vision.vision_model_type, vision.hidden_act) == (
        name,
        "siglip",
        "gelu_pytorch_tanh",
    )
    assert (vision.num_layers, vision.hidden_size, vision.image_size, vision.patch_size) == (24, 1024, 384, 16)


def test_what_is_assumed_by_a_default_of_nemo_says_so(folder, capfd):
    text = re.sub(r"^ *model_type:.*\n", "", (CONFIGS / "pretrain.yaml").read_text(), flags=re.MULTILINE)
    (folder / "a.yaml").write_text(text)
    assert main(["import-nemo", "a.yaml", "model.data.conv_template=plain"]) == 0
    err = capfd.readouterr().err
    assert re.search(
        r"^assumed: model\.language\.vocab_size=256000: .*; model\.mm_cfg\.llm\.model_type=nvgpt \(NeMo's default\)$",
        err,
        re.MULTILINE,
    )


def test_only_near_keys_are_offered_for_an_unknown_one(folder, capfd):
    (folder / "a.yaml").write_text((CONFIGS / "pretrain.yaml").read_text())
    words = ["+model.typo_key=1", "+model.hiden_size=1", "+trainer.max_stesp=1"]
    assert main(["import-nemo", "a.yaml", *words]) == 0
    err = capfd.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("unknown key: ")]
    offered = {
        line.split()[2].rstrip(":"): line.partition("did you mean ")[2].rstrip("?)").split(", ") for line in lines
    }
    assert offered["model.typo_key"] == [""]
    assert offered["model.hiden_size"][0] == "model.hidden_size"
    assert offered["trainer.max_stesp"][0] == "trainer.max_steps"


def test_values_that_have_to_be_given_stand_out(folder, capfd):
    text = (CONFIGS / "pretrain.yaml").read_text()
    changed = re.sub(r"^  (devices|onnx_safe): .*$", r"  \1: ???", text, flags=re.MULTILINE)
    (folder / "a.yaml").write_text(changed)
    assert main(["import-nemo", "a.yaml"]) == 0
    err = capfd.readouterr().err
    assert "cannot carry: trainer.devices=???: has to be given: set trainer.devices\n" in err
    # How something is done need not be given.
    assert "left out: model.onnx_safe=???: has to be given\n" in err


@pytest.mark.parametrize("config", sorted(path.name for path in CONFIGS.iterdir()))
def test_every_key_is_accounted_for_in_the_file(config, import_nemo, folder):
    words = LAUNCHER_WORDS if config == "launcher.yaml" else []
    code, _, err = import_nemo(config, *words)
    assert code == 0, err
    values = read_configuration(folder / config, dict(word.split("=") for word in words))
    text = (folder / "recipe.py").read_text()
    comments = set(re.split(r"[\s,=:]+", " ".join(line.partition("#")[2] for line in text.splitlines())))
    assert set(values) - comments == set()


def test_the_file_is_formatted_as_the_project_is(import_nemo, folder):
    ruff = Path(sys.executable).with_name("ruff")
    for config in ("pretrain.yaml", "odd.yaml"):
        assert import_nemo(config, "--output", f"{config}.py")[0] == 0
        done = subprocess.run(
            [ruff, "format", "--check", "--line-length", "120", f"{config}.py"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_dry_run_does_not_import_omegaconf(import_nemo, folder):
    assert import_nemo("finetune.yaml")[0] == 0
    probe = (
        "import sys; from neva_recipes.cli.main import main\n"
        "assert main(['neva_13b_finetune', '--recipes', 'recipe.py', '--dry-run']) == 0\n"
        "assert not {'omegaconf', 'antlr4', 'torch'} & {name.split('.')[0] for name in sys.modules}\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env={**os.environ}, timeout=60)
    assert done.returncode == 0, done.stderr


ALL = {
    key: value
    for config in ("pretrain.yaml", "finetune.yaml", "odd.yaml")
    for key, value in read_configuration(CONFIGS / config).items()
}
NEEDED = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "encoder_seq_length")
NEEDED += ("micro_batch_size", "global_batch_size")
HOSTILE_TEXT = "a\n'''\"\"\"\\N{x}"
STRANGE_VALUES = [
    *(None, True, False, 0, 1, -1, 7, 2.5, 1e30, float("nan")),
    *("", "auto", "1e-4", HOSTILE_TEXT),
    *([], [1, 2], {}, ["x", None], [[1], [1]]),
]
STRANGE = st.sampled_from([*STRANGE_VALUES, "???"])


@pytest.mark.parametrize("beside", [{}, ALL], ids=["alone", "among others"])
def test_no_value_of_any_key_is_a_crash(beside):
    for rule in RULES:
        for value in STRANGE_VALUES:
            with contextlib.suppress(Unusable):
                outcome = rule.decide(value, Configuration({**beside, rule.key: value}))
                assert outcome.kind in ("carried", "same", "left", "cannot")
                assert outcome.why or outcome.kind not in ("left", "cannot"), rule.key


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_configurations_become_runnable_files_or_one_line(data):
    keys = data.draw(st.sets(st.sampled_from(sorted(ALL))))
    values = {f"model.{key}": 8 for key in NEEDED if data.draw(st.integers(0, 20))}
    values |= {key: ALL[key] for key in keys}
    values |= data.draw(st.dictionaries(st.sampled_from(sorted(ALL)), STRANGE, max_size=6))
    values |= data.draw(st.dictionaries(st.sampled_from(["model.nonsense", "a b", "x#\n'"]), STRANGE, max_size=2))
    try:
        translation = translate(values)
    except RecipeError as error:
        assert str(error).startswith("model.") and "\n" not in str(error)
        return
    assert {fate.key for fate in translation.fates if fate.in_file} == set(values)
    namespace = {}
    exec(compile(render(translation, "x", Path('it"s\\N.yaml'), ["a\nproblem"]), "x.py", "exec"), namespace)
    assert build(namespace["x"]()) == build(translation.recipe("x"))
    check_recipe(build(translation.recipe("x")))


def test_the_order_of_keys_does_not_matter():
    for config in ("pretrain.yaml", "finetune.yaml", "odd.yaml"):
        values = read_configuration(CONFIGS / config)
        backwards = dict(reversed(values.items()))
        assert build(translate(values).recipe("x")) == build(translate(backwards).recipe("x"))
