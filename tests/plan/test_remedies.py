"""No remedy leads in a circle: each has been tried against every rule that would be asked next, files included."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neva_recipes import llava
from neva_recipes.config import build, set_field
from neva_recipes.plan import check_recipe
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.data.files import FileRules
from tests.plan.model_directories import write_model
from tests.plan.test_files import LANGUAGE, TOWER, sample, write_tokenizer

TEXT = {**LANGUAGE, "model_type": "llama"}
SIZE = "model.language.vocab_size"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Directories in the layouts that people have, all with tokenizers of their own; 258 tokens are words."""
    path = tmp_path_factory.mktemp("world")
    (path / "images").mkdir()
    (path / "chats.json").write_text(json.dumps([sample(0)]))
    (path / "images/0.png").write_bytes(b"\x89PNG")
    write_tokenizer(path / "tokens")
    for name, rows, specials in (
        ("plain", 258, ["<s>", "</s>"]),
        ("filled up", 320, ["<s>", "</s>"]),
        ("pad added", 258, ["<s>", "</s>", "[PAD]"]),
    ):
        write_model(path / name, {**TEXT, "vocab_size": rows})
        write_tokenizer(path / name, specials)
    # As llava-1.5-7b-hf: an image token, one that fills rows, and rows that fill up the matrix.
    config = {"model_type": "llava", "text_config": {**TEXT, "vocab_size": 320}, "vision_config": TOWER}
    write_model(path / "llava", config | {"image_token_index": 258})
    write_tokenizer(path / "llava", ["<s>", "</s>", "<image>", "<pad>"])
    settings_path = path / "llava/tokenizer_config.json"
    settings_path.write_text(json.dumps(json.loads(settings_path.read_text()) | {"pad_token": "<pad>"}))
    return path


def recipe_of(world, name, **fields):
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.image_folder = str(world / "chats.json"), str(world)
    recipe.data.global_batch_size = recipe.data.micro_batch_size = 8
    recipe.model.language.from_pretrained = str(world / name)
    for path, value in fields.items():
        set_field(recipe, path.replace("__", "."), value)
    return recipe


def every_finding(built):
    files = FileRules()
    return [*check_recipe(built, None, files.rules), *files.check(built)]


def errors(findings):
    return {(finding.code, *finding.fields) for finding in findings if finding.severity == "error"}


@pytest.mark.parametrize(
    ("name", "size", "remedies"),
    [
        ("llava", 258, None),
        ("llava", 260, None),
        ("llava", 320, None),
        ("llava", 257, [258]),
        ("llava", 512, [258]),
        ("filled up", 258, [320]),
        ("filled up", 320, None),
        ("pad added", 258, [259]),
        ("pad added", 259, None),
        ("pad added", 512, [259]),
        ("plain", 512, [258]),
    ],
)
def test_a_vocabulary_that_works_is_named_at_once(world, name, size, remedies):
    built = build(recipe_of(world, name, model__language__vocab_size=str(size)))
    findings = [finding for finding in every_finding(built) if finding.severity == "error"]
    if remedies is None:
        assert findings == []
        return
    assert {finding.code for finding in findings} == {"vocabulary-size"}
    for finding in findings:
        assert [remedy[SIZE] for remedy in finding.remedies] == remedies, finding.line()
        assert errors(every_finding(with_values(built, finding.remedies[0]))) == set()


def test_a_whole_llava_needs_nothing_but_its_path(world):
    recipe = recipe_of(world, "llava", model__language__vocab_size="258")
    recipe.model.vision.from_pretrained = recipe.model.projector.from_pretrained = str(world / "llava")
    assert errors(every_finding(build(recipe))) == set()


def test_processes_and_their_shares_are_named_together(world):
    recipe = recipe_of(world, "plain", model__language__vocab_size="258")
    set_field(recipe, "parallel.tensor_model_parallel_size", "3")
    set_field(recipe, "trainer.devices", "3")
    built = build(recipe)
    offered = [remedy for finding in every_finding(built) for remedy in finding.remedies]
    assert {"parallel.tensor_model_parallel_size": 2, "trainer.devices": 2} in offered
    for remedy in offered:
        assert errors(every_finding(with_values(built, remedy))) <= errors(every_finding(built))


VALUES = {
    "model.language.vocab_size": ("250", "258", "259", "260", "320", "512"),
    "model.use_im_start_end": ("true", "false"),
    "model.language.num_layers": ("2", "4"),
    "model.language.hidden_size": ("64", "128"),
    "model.language.num_query_groups": ("1", "4"),
    "model.language.share_embeddings_and_output_weights": ("true", "false"),
    "model.vision.num_layers": ("2", "4"),
    "model.vision.image_size": ("28", "56"),
    "model.vision.vision_select_feature": ("patch", "cls_patch", "skip_first"),
    "model.vision.vision_select_layer": ("-2", "-1", "9"),
    "model.projector.mm_projector_type": ("linear", "mlp2x_gelu", "mlp3x_gelu"),
    "data.conv_template": ("v1", "plain", "chatml", "llama_2", "llama_3"),
    "data.sequence_length": ("16", "64", "512"),
    "data.global_batch_size": ("6", "8", "24"),
    "parallel.tensor_model_parallel_size": ("1", "2", "3", "4"),
    "parallel.pipeline_model_parallel_size": ("1", "2", "3"),
    "trainer.devices": ("1", "2", "3", "4"),
}
DIRECTORIES = ("plain", "filled up", "pad added", "llava", "nowhere", "plian")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(sorted(VALUES)), st.integers(0, 9), max_size=6),
    st.sampled_from(DIRECTORIES),
    st.booleans(),
    st.booleans(),
)
def test_every_remedy_leads_to_a_recipe_without_the_error_or_a_new_one(world, chosen, name, whole, own_tokens):
    recipe = recipe_of(world, name)
    if whole:
        recipe.model.vision.from_pretrained = recipe.model.projector.from_pretrained = str(world / "llava")
    if own_tokens:
        recipe.data.tokenizer = str(world / "tokens")
    for path, number in chosen.items():
        set_field(recipe, path, VALUES[path][number % len(VALUES[path])])
    built = build(recipe)
    before = every_finding(built)
    for finding in before:
        for remedy in finding.remedies:
            after = every_finding(with_values(built, remedy))
            assert not any((one.code, *one.fields) == (finding.code, *finding.fields) for one in after), finding.line()
            assert errors(after) <= errors(before), finding.line()
