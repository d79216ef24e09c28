"""Rules between fields: each is found where it is broken and nowhere else, and docs/checks.md lists them all."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from neva_recipes import gpt, llava, neva
from neva_recipes.config import RecipeError, TextDataConfig, build, config, set_field
from neva_recipes.plan import check_recipe, require_valid
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.cost.gpus import find_gpu
from tests.plan.wrong_fields import ROPE, WRONG_FIELDS, make

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def core(monkeypatch):
    """Megatron-Core of the release that has all rules is installed, or the one that a test names."""

    def install(release):
        monkeypatch.setattr("neva_recipes.plan.checks.recompute.installed_core", lambda: release)

    install("0.16.1")
    return install


@pytest.mark.parametrize("release", [None, "0.16.1", "0.19.2"])
def test_the_last_chunk_of_layers_may_be_shorter_under_core_0_19(core, release):
    core(release)
    whole = "model.recompute_method=uniform model.recompute_num_layers="
    block = "model.recompute_method=block model.recompute_num_layers="
    found = {
        name: [finding.code for finding in find("llava.finetune", name) if finding.code == "recompute-layers"]
        for name in (f"{whole}8", f"{whole}5", f"{whole}33", f"{block}5", f"{block}33")
    }
    refused = [] if release == "0.19.2" else ["recompute-layers"]
    assert list(found.values()) == [[], refused, refused, [], ["recompute-layers"]]


def find(name, overrides="", gpu=None):
    return check_recipe(build(make(name, overrides)), find_gpu(gpu) if gpu else None)


@pytest.mark.parametrize(
    ("rope", "longest"),
    [
        ("", 512),
        ("kind=default", 512),
        ("kind=linear factor=2", 1024),
        ("kind=dynamic factor=2.5", 1280),
        ("kind=yarn factor=2", 1024),
        ("kind=yarn factor=2 original_max_position_embeddings=128", 512),
        ("kind=yarn factor=8 original_max_position_embeddings=128", 1024),
        ("kind=llama3 factor=8 low_freq_factor=1 high_freq_factor=4 original_max_position_embeddings=64", 512),
        (f"kind=longrope short_factor={'1,' * 15}1 long_factor={'2,' * 15}2 original_max_position_embeddings=64", 512),
    ],
)
def test_a_sequence_is_as_long_as_positions_reach(rope, longest):
    """The tiny model has 512 positions; what stretches them is vLLM's rule."""
    words = " ".join(f"model.language.rope.{word}" for word in rope.split())
    for length, codes in ((longest, []), (longest + 1, ["sequence-positions"])):
        found = find("gpt.pretrain tiny", f"{words} data.sequence_length={length}".strip())
        assert [finding.code for finding in found if finding.severity == "error"] == codes


@pytest.mark.parametrize(
    ("code", "severity", "name", "overrides", "gpu"), WRONG_FIELDS, ids=lambda value: str(value)[:60]
)
def test_a_broken_rule_is_found(code, severity, name, overrides, gpu):
    found = [finding for finding in find(name, overrides, gpu) if finding.code == code]
    assert [finding.severity for finding in found] == [severity]
    assert code not in {finding.code for finding in find(name, gpu=gpu)}
    line = found[0].line()
    assert "\n" not in line and all(path in line for path in found[0].fields)
    assert found[0].remedies or found[0].advice, line


@pytest.mark.parametrize(
    ("rate", "remedies"),
    [("1.9e-4", None), ("2e-4", [2e-5]), ("10", [2e-5]), ("1e5", [1e-5, 2e-5]), ("0.3", [2e-5])],
)
def test_a_learning_rate_of_another_order_than_the_recipes_own(rate, remedies):
    assert rates_told("llava.finetune", f"optim.lr={rate}") == ([] if remedies is None else [remedies])


def rates_told(name, overrides):
    """Return the learning rates that each warning of a high one offers."""
    found = [finding for finding in find(name, overrides) if finding.code == "lr-large"]
    offered = [[dict(remedy) for remedy in finding.remedies] for finding in found]
    rates = [[remedy.get("optim.lr") for remedy in remedies] for remedies in offered]
    assert offered == [[{"optim.lr": rate} for rate in each] for each in rates]  # they change nothing else
    return rates


@pytest.mark.parametrize(
    ("name", "overrides", "told"),
    [
        ("llava.finetune tiny", "optim.lr=5e-3", []),
        ("llava.finetune tiny", "optim.lr=1e-2", [[1e-3]]),
        ("llava.pretrain tiny", "optim.lr=1e-2", []),
        ("llava.pretrain tiny", "optim.lr=3e-2", [[3e-3]]),
        ("llava.pretrain", "optim.lr=9e-3", []),
        ("gpt.pretrain", "optim.lr=3e-3", [[3e-4]]),
        ("gpt.pretrain tiny", "optim.lr=3e-3", []),
        # Without adapters the weights themselves are trained.
        ("llava.lora", "model.language.lora=none", [[2e-5]]),
        ("llava.lora", "model.language.lora=none optim.lr=2e-5", []),
        ("llava.lora", "optim.lr=1.9e-3", []),
        ("llava.lora tiny", "model.language.lora=none", []),
        # Only the projector is trained, as in a first stage.
        ("llava.finetune", "model.language.freeze=true optim.lr=1e-3", []),
        ("llava.finetune", "model.language.freeze=true optim.lr=1e-2", [[1e-3]]),
    ],
)
def test_every_size_has_a_learning_rate_of_its_own(name, overrides, told):
    assert rates_told(name, overrides) == told


@pytest.mark.parametrize(
    ("name", "overrides", "told"),
    [
        ("llava.lora", "optim.lr_of.language=1.9e-3 optim.lr_of.projector=9e-3", []),
        ("llava.lora", "optim.lr_of.language.layers.31=2e-3", ["10 times the 0.0002 that language.layers.31 is"]),
        ("llava.finetune", "optim.lr_of.language=2e-4", ["10 times the 2e-05 that language is trained"]),
        ("llava.finetune", "optim.lr_of.projector=1e-3", []),
        ("llava.lora", "optim.lr_of.projector=2", ["2e+03 times the 0.001 that projector is trained with at most"]),
    ],
)
def test_rates_of_single_weights_are_held_to_those_of_their_kind(name, overrides, told):
    found = [finding for finding in find(name, overrides) if finding.code == "lr-large"]
    assert len(found) == len(told) and all(map(str.startswith, (finding.message for finding in found), told))


@pytest.mark.parametrize(
    ("overrides", "offered"),
    [
        ("", 2e-4),
        ("optim.lr=2.1e-5", None),
        ("optim.lr_of.projector=2e-5", 2e-4),
        ("optim.lr_of.language=2e-4", None),
        ("optim.lr_of.language.layers.*.q_proj=2e-4", None),
    ],
)
def test_adapters_at_the_rate_of_weights(overrides, offered):
    found = [
        each for each in find("llava.finetune", f"model.language.lora.rank=8 {overrides}") if each.code == "lr-small"
    ]
    assert [[dict(each) for each in finding.remedies] for finding in found] == [[{"optim.lr": offered}]] * bool(offered)


@pytest.mark.parametrize(
    ("targets", "offered"),
    [
        ("q_proj,v_prj", ["q_proj", "v_proj"]),
        ("v_prj,v_proj", ["v_proj"]),
        ("self_attn.q_prj,mlp.down_prj", ["self_attn.q_proj", "mlp.down_proj"]),
        ("q_proj,zzz", ["q_proj"]),
        ("zzz", None),
        ("[]", None),
    ],
)
def test_misspelt_layers_are_corrected(targets, offered):
    (finding,) = (
        each
        for each in find("llava.lora", f"model.language.lora.target_modules={targets}")
        if each.code == "adapter-targets"
    )
    assert [dict(each) for each in finding.remedies] == [{"model.language.lora.target_modules": offered}]


@pytest.mark.parametrize(
    ("name", "overrides", "side"),
    [
        # 4096 x 11008 and 4096 x 4096; with 8 groups of 128 a query is still whole, and a key is 1024 x 4096.
        ("llava.lora", "rank=4096", None),
        ("llava.lora", "rank=4097", 4096),
        ("llava.lora", "rank=1025 num_query_groups=8", None),
        ("llava.lora", "rank=1025 num_query_groups=8 target_modules=k_proj,v_proj", 1024),
        ("llava.lora tiny", "rank=1024", 128),
    ],
)
def test_ranks_above_those_of_the_layers(name, overrides, side):
    lora = overrides.replace("rank=", "lora.rank=").replace("target", "lora.target").split()
    found = find(name, " ".join(f"model.language.{each}" for each in lora))
    messages = [finding.message for finding in found if finding.code == "adapter-rank"]
    assert len(messages) == (side is not None)
    assert all(f"no layer has a smaller side above {side}, " in message for message in messages)


@pytest.mark.parametrize(("rate", "told"), [(1e-2, False), (0.011, True)])
def test_a_recipe_of_ones_own_has_the_highest_published_rate_for_a_measure(rate, told):
    recipe = llava.finetune()
    recipe.name, recipe.optim.lr = "mine", rate
    found = [finding for finding in check_recipe(build(recipe)) if finding.code == "lr-large"]
    assert [finding.advice for finding in found] == ["published recipes take 2e-05 to 0.001"] * told


def test_text_data_with_a_vision_tower():
    recipe = llava.finetune()
    recipe.data = config(TextDataConfig, data_path="x.jsonl")
    recipe.model.projector.from_pretrained = "runs/stage 1"
    (finding,) = check_recipe(build(recipe))
    assert finding.code == "data-without-images"
    assert "set model.vision=none model.projector=none" in finding.line()


@pytest.mark.parametrize(
    ("code", "name", "overrides"),
    [
        ("tensor-parallel-groups", "neva.finetune", "model.language.num_query_groups=5"),
        ("world-size", "neva.finetune", "trainer.devices=1"),
        ("tensor-parallel-nodes", "neva.finetune", "trainer.num_nodes=4 trainer.devices=1"),
    ],
)
def test_one_process_alone_has_no_sequence_parallelism(code, name, overrides):
    recipe = build(make(name, overrides))
    assert recipe.parallel.sequence_parallel and recipe.parallel.tensor_model_parallel_size > 1
    before = {finding.code: finding for finding in check_recipe(recipe)}
    alone = {"parallel.tensor_model_parallel_size": 1, "parallel.sequence_parallel": False}
    assert alone in before[code].remedies
    after = {finding.code for finding in check_recipe(with_values(recipe, alone)) if finding.severity == "error"}
    assert after <= {*before} - {code}


def test_half_a_vision_model_is_not_to_lose_the_other_half_where_data_has_images():
    assert [finding.remedies for finding in find("llava.finetune", "model.projector=none")] == [()]
    recipe = llava.finetune()
    recipe.data, recipe.model.vision = config(TextDataConfig, data_path="x.jsonl"), None
    remedies = {finding.code: finding.remedies for finding in check_recipe(build(recipe))}
    assert remedies["vision-and-projector"] == ({"model.projector": None},)


@pytest.mark.parametrize(
    "recipe",
    [
        *(function(size) for function in (llava.pretrain, llava.finetune) for size in ("7b", "13b")),
        *(function(size) for function in (neva.pretrain, neva.finetune) for size in ("7b", "13b")),
        *(gpt.pretrain(size) for size in ("7b", "13b", "tiny")),
        llava.finetune("tiny"),
    ],
    ids=lambda recipe: f"{recipe.name}-{recipe.model.language.num_layers}",
)
def test_built_in_recipes_break_no_rule(recipe):
    if not recipe.model.language.freeze and recipe.model.projector and recipe.trainer.devices:
        recipe.model.projector.from_pretrained = "runs/stage 1"  # which only the user can name
    assert check_recipe(build(recipe), find_gpu("a100-80g")) == []


def test_the_tiny_first_stage_warns_of_its_random_language_model():
    assert [finding.code for finding in check_recipe(build(llava.pretrain("tiny")))] == ["random-and-frozen"]
    recipe = llava.pretrain("tiny")
    recipe.model.language.from_pretrained = "runs/gpt.pretrain"
    assert check_recipe(build(recipe)) == []


@pytest.mark.parametrize("make", [llava.lora, llava.qlora])
def test_tiny_adapters_beside_a_random_language_model(make):
    (finding,) = check_recipe(build(make("tiny")))
    assert finding.line() == (
        "model.language.from_pretrained=random, model.language.lora.kind=lora: the language model keeps random "
        "weights: whatever is trained before it learns nothing useful; "
        "set model.language.from_pretrained=RUN_OR_DIRECTORY, or leave it if random weights are meant"
    )
    recipe = make("tiny")
    for part in ("language", "vision", "projector"):
        set_field(recipe, f"model.{part}.from_pretrained", "runs/llava.pretrain")
    assert "random-and-frozen" not in [finding.code for finding in check_recipe(build(recipe))]


def test_random_weights_are_told_until_a_recipe_says_that_it_means_them():
    recipe = llava.finetune()
    recipe.model.language.from_pretrained = recipe.model.vision.from_pretrained = None
    told = {next(iter(finding.fields)): finding for finding in check_recipe(build(recipe))}
    parts = [f"model.{part}.from_pretrained" for part in ("language", "vision", "projector")]
    assert list(told) == parts
    assert told[parts[2]].line() == (
        "model.projector.from_pretrained=none: the projector begins from random weights, and the language model is "
        "trained with what it makes of images; set model.projector.from_pretrained=RUN (a run of stage 1, such as "
        "llava.pretrain), or =random if random weights are meant"
    )
    for part in parts:
        set_field(recipe, part, "random")
    assert check_recipe(build(recipe)) == []
    assert not [finding for finding in check_recipe(build(gpt.pretrain("7b"))) if "random" in finding.code]


@pytest.mark.parametrize("value", ["random", "none"])
@pytest.mark.parametrize("part", ["language", "vision"])
def test_a_projector_forgotten_beside_trained_weights_is_told_of_though_tiny_means_random_ones(part, value):
    recipe = llava.finetune("tiny")
    set_field(recipe, f"model.{part}.from_pretrained", "runs/earlier")
    set_field(recipe, "model.projector.from_pretrained", value)
    assert [finding.line() for finding in check_recipe(build(recipe))] == [
        f"model.projector.from_pretrained={value}: the projector begins from random weights, and the language model is "
        "trained with what it makes of images; set model.projector.from_pretrained=RUN (a run of stage 1, such as "
        "llava.pretrain), or leave it if random weights are meant"
    ]
    recipe.model.projector.from_pretrained = "runs/stage 1"
    assert check_recipe(build(recipe)) == []


def test_lines_name_fields_and_what_to_do():
    lines = {
        # 4 processes would divide the heads, but not the 6 there are.
        "parallel.tensor_model_parallel_size=3 trainer.devices=6 data.global_batch_size=12": (
            "model.language.num_attention_heads=32, parallel.tensor_model_parallel_size=3: 32 heads are not a multiple "
            "of 3 processes; set parallel.tensor_model_parallel_size=2"
        ),
        "data.global_batch_size=100": (
            "data.global_batch_size=100, data.micro_batch_size=4: 100 samples are not a multiple of 4 samples x 8 "
            "replicas = 32; set data.global_batch_size=96 or data.global_batch_size=128"
        ),
        "model.language.num_query_groups=12": (
            "model.language.num_attention_heads=32, model.language.num_query_groups=12: 32 heads are not a multiple of "
            "12 groups; set model.language.num_query_groups=8 or model.language.num_query_groups=16"
        ),
        "trainer.max_epochs=1": (
            "trainer.max_steps=5198, trainer.max_epochs=1: exactly one of max_steps and max_epochs must be set, the "
            "other none; set trainer.max_epochs=none, or set trainer.max_steps=none"
        ),
    }
    for overrides, line in lines.items():
        assert find("llava.finetune", overrides)[0].line() == line


def test_rotary_positions_are_named_by_their_kind():
    overrides = f"model.language.family=gpt2 {ROPE}kind=linear {ROPE}factor=2"
    (line,) = [finding.line() for finding in find("gpt.pretrain tiny", overrides) if "learned" in finding.code]
    assert line == (
        f"{ROPE}kind=linear: positions of family=gpt2 are learned, so nothing is rotated; set model.language.rope=none"
    )


@pytest.mark.parametrize(
    ("rope", "told"),
    [
        ("kind=linear factor=1", ["does nothing"]),
        ("kind=yarn factor=0.5", ["squeezes positions together"]),
        ("kind=llama3 low_freq_factor=1 high_freq_factor=4 factor=1", ["does nothing"]),
        # Beyond the first length positions are stretched by any factor.
        ("kind=dynamic factor=1", []),
        # The divisors stretch; the factor is about cosine and sine.
        (f"kind=longrope factor=1 short_factor={'1,' * 15}1 long_factor={'2,' * 15}2", []),
        # It is not read at all, which another rule says.
        ("kind=default factor=1", []),
    ],
)
def test_a_factor_that_stretches_nothing_is_told_of_where_it_stretches(rope, told):
    words = " ".join(f"{ROPE}{word}" for word in rope.split())
    found = [finding for finding in find("gpt.pretrain tiny", words) if finding.code == "rope-scaling"]
    assert [each in finding.message for each, finding in zip(told, found, strict=True)] == [True] * len(told)


def test_the_first_error_stops_a_launch():
    with pytest.raises(
        RecipeError, match=r"^data\.global_batch_size=100, .*; set data\.global_batch_size=96 or"
    ) as one:
        require_valid(build(make("llava.finetune", "data.global_batch_size=100")))
    assert "more" not in str(one.value)
    with pytest.raises(RecipeError, match=r"\(and 1 more: --dry-run lists them\)$"):
        require_valid(build(make("llava.finetune", "data.global_batch_size=100 optim.min_lr=1")))
    require_valid(build(make("llava.finetune", "parallel.use_distributed_optimizer=false")))


def codes_in_source(folder):
    """Return the codes in calls that make findings under a folder."""
    codes = set()
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            position = {"error": 0, "warning": 0, "report": 0, "Finding": 0, "finding": 1, "_finding": 1}.get(
                node.func.id
            )
            if position is not None and len(node.args) > position and isinstance(node.args[position], ast.Constant):
                codes.add(node.args[position].value)
    return codes


def documented():
    """Return the codes of docs/checks.md, each with its severities."""
    text = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([a-z, ]+) \|", text, re.MULTILINE)
    assert max(Counter(code for code, _ in rows).values()) == 1
    return {code: set(severities.split(", ")) for code, severities in rows}


def test_every_code_is_documented_and_no_other():
    assert set(documented()) == codes_in_source(ROOT / "neva_recipes" / "plan") | codes_in_source(ROOT / "executors")


def test_every_documented_rule_between_fields_is_broken_by_a_test_recipe():
    broken = {code: set() for code in codes_in_source(ROOT / "neva_recipes" / "plan" / "checks")}
    for code, severity, *_ in WRONG_FIELDS:
        broken[code].add(severity)
    broken["data-without-images"].add("error")
    assert broken == {code: severities for code, severities in documented().items() if code in broken}
