"""Wrong recipes through the real command: one `error:` line for each error, with field and remedy, exit code 2."""

import pytest

from neva_recipes.cli.main import main
from neva_recipes.config import recipe_to_yaml
from tests.plan.wrong_fields import make

TENSOR, PIPELINE = "parallel.tensor_model_parallel_size", "parallel.pipeline_model_parallel_size"
VIRTUAL, FIRST = "parallel.virtual_pipeline_model_parallel_size", "parallel.num_layers_in_first_pipeline_stage"
TEXT, SEEING, TINY = "gpt.pretrain", "llava.finetune", "llava.finetune size=tiny"

# Command line; of every error the field with its value, and the remedy.
OVERRIDES = [
    # The model.
    (SEEING + " model.projector=none", [("model.projector=none", "set both, or neither")]),
    (TEXT + " model.use_im_start_end=true", [("model.use_im_start_end=true", "set model.use_im_start_end=false")]),
    (TEXT + " model.language.freeze=true", [("model.language.freeze=true", "set model.language.freeze=false")]),
    (
        SEEING + " model.language.num_query_groups=5 model.language.from_pretrained=random",
        [("model.language.num_query_groups=5", "=4 or model.language.num_query_groups=8")],
    ),
    (
        TINY + " model.language.kv_channels=7",
        [("model.language.kv_channels=7", "set model.language.kv_channels=none or model.language.kv_channels=8")],
    ),
    (TEXT + " data.sequence_length=8192", [("data.sequence_length=8192", "set data.sequence_length=4096")]),
    (
        SEEING + " model.language.hidden_dropout=1",
        [("model.language.hidden_dropout=1.0", "set model.language.hidden_dropout=0.1")],
    ),
    # The vision tower and the data.
    (
        SEEING + " model.vision.num_attention_heads=15 model.vision.from_pretrained=random",
        [("model.vision.num_attention_heads=15", "=8 or model.vision.num_attention_heads=16")],
    ),
    (
        SEEING + " model.vision.image_size=340 model.vision.from_pretrained=random",
        [("model.vision.image_size=340", "=336 or model.vision.image_size=350")],
    ),
    (
        SEEING + " model.vision.vision_select_layer=30",
        [("model.vision.vision_select_layer=30", "set model.vision.vision_select_layer=24")],
    ),
    (
        "neva.finetune model.vision.image_size=336",
        [
            ("model.vision.image_token_len=256", "set model.vision.image_token_len=576"),
            ("model.vision.from_pretrained=openai/clip-vit-large-patch14", "set model.vision.image_size=224"),
        ],
    ),
    (SEEING + " data.sequence_length=512", [("data.sequence_length=512", "set data.sequence_length=640")]),
    (
        SEEING + " data.dataloader_type=single",
        [("data.group_by_modality_length=true", "set data.dataloader_type=cyclic")],
    ),
    (
        TEXT + " data.dataloader_type=single trainer.max_steps=none trainer.max_epochs=3",
        [("trainer.max_epochs=3", "or set trainer.max_epochs=1")],
    ),
    # The layout.
    (
        f"{SEEING} {TENSOR}=3 trainer.devices=3 data.global_batch_size=6 data.micro_batch_size=1",
        [
            (f"model.language.num_attention_heads=32, {TENSOR}=3", f"set {TENSOR}=1"),
            (f"model.language.ffn_hidden_size=11008, {TENSOR}=3", f"set {TENSOR}=1"),
        ],
    ),
    (f"{SEEING} trainer.devices=6 {TENSOR}=4", [("trainer.devices=6", "set trainer.devices=4 or trainer.devices=8")]),
    (
        SEEING + " trainer.num_nodes=3",
        [("data.global_batch_size=128", "set data.global_batch_size=96 or data.global_batch_size=192")],
    ),
    (
        SEEING + " data.micro_batch_size=5",
        [("data.micro_batch_size=5", "or set data.micro_batch_size=4 or data.micro_batch_size=8")],
    ),
    (
        f"{TINY} {PIPELINE}=3",
        [(f"{PIPELINE}=3", f"set {PIPELINE}=2 or {PIPELINE}=4, or set {FIRST}=2")],
    ),
    (f"{TINY} {PIPELINE}=2 {FIRST}=4", [(f"{FIRST}=4", f"set {FIRST}=3 or {FIRST}=none")]),
    (f"{TINY} {FIRST}=1", [(f"{FIRST}=1", f"{FIRST}=none")]),
    (f"{TINY} {VIRTUAL}=2", [(f"{VIRTUAL}=2", f"set {VIRTUAL}=none")]),
    (f"{TINY} {PIPELINE}=2 {VIRTUAL}=3", [(f"{VIRTUAL}=3", f"set {VIRTUAL}=2 or {VIRTUAL}=none")]),
    (
        f"{TINY} {PIPELINE}=4 {VIRTUAL}=1 data.micro_batch_size=3",
        [("data.global_batch_size=64, data.micro_batch_size=3", "set data.global_batch_size=63")],
    ),
    (
        f"{TINY} {PIPELINE}=2 {VIRTUAL}=2 data.micro_batch_size=64",
        [("data.micro_batch_size=64", "set data.global_batch_size=128, or set data.micro_batch_size=32")],
    ),
    (
        SEEING + " parallel.sequence_parallel=true",
        [("parallel.sequence_parallel=true", "set parallel.sequence_parallel=false")],
    ),
    (
        SEEING + " parallel.overlap_param_gather=true",
        [("parallel.overlap_param_gather=true", "set parallel.overlap_grad_reduce=true")],
    ),
    (
        TINY + " parallel.context_parallel_size=8 parallel.cp_comm_type=a2a",
        [("parallel.cp_comm_type=a2a", "set parallel.cp_comm_type=p2p, or set parallel.context_parallel_size=4")],
    ),
    # Recomputing activations.
    (
        SEEING + " model.recompute_granularity=none",
        [("model.recompute_method=uniform", "set model.recompute_method=none model.recompute_num_layers=none")],
    ),
    (TINY + " model.recompute_method=block", [("model.recompute_method=block", "set model.recompute_method=none")]),
    (
        TINY + " model.recompute_granularity=full",
        [("recompute_method=none", "set model.recompute_method=uniform model.recompute_num_layers=1")],
    ),
    (
        SEEING + " model.recompute_num_layers=3",
        [("model.recompute_num_layers=3", "=2 or model.recompute_num_layers=4, or set model.recompute_method=block")],
    ),
    (TINY + " model.recompute_modules=mlp", [("model.recompute_modules=mlp", "set model.recompute_modules=none")]),
    # Precision.
    (TINY + " precision.fp8=e4m3", [("precision.fp8=e4m3", "set precision.precision=bf16, or set precision.fp8=none")]),
    (SEEING + " precision.fp8_param=true", [("precision.fp8_param=true", "set precision.fp8_param=false")]),
    (
        SEEING + " precision.fp8=hybrid precision.fp8_recipe=tensorwise precision.fp8_margin=2",
        [("precision.fp8_margin=2", "set precision.fp8_margin=0, or set precision.fp8_recipe=delayed")],
    ),
    (
        SEEING + " precision.fp8=hybrid precision.first_last_layers_bf16=true",
        [("precision.first_last_layers_bf16=true", "set precision.first_last_layers_bf16=false")],
    ),
    (
        TEXT + " precision.fp8=hybrid model.language.ffn_hidden_size=11000",
        [("model.language.ffn_hidden_size=11000", "set model.language.ffn_hidden_size=10976")],
    ),
    (SEEING + " precision.fp8=hybrid --gpu a100-80g", [("precision.fp8=hybrid", "set precision.fp8=none")]),
    (
        SEEING + " precision.fp8=hybrid precision.fp8_recipe=mxfp8 --gpu h100-80g",
        [("precision.fp8_recipe=mxfp8", "set precision.fp8_recipe=tensorwise")],
    ),
    # Training, validation, checkpoints, names.
    (SEEING + " trainer.max_epochs=1", [("trainer.max_epochs=1", "set trainer.max_epochs=none")]),
    (SEEING + " trainer.max_steps=none", [("trainer.max_steps=none", "set trainer.max_epochs=1")]),
    (SEEING + " optim.min_lr=1e-3", [("optim.min_lr=0.001", "set optim.min_lr=2e-05")]),
    (SEEING + " optim.warmup_steps=5", [("optim.warmup_steps=5", "set optim.warmup_ratio=none")]),
    (SEEING + " optim.adam_beta2=1", [("optim.adam_beta2=1.0", "set optim.adam_beta2=0.999")]),
    (SEEING + " trainer.ema_decay=1", [("trainer.ema_decay=1.0", "set trainer.ema_decay=0.9999")]),
    (
        SEEING + " trainer.early_stopping_patience=3",
        [("trainer.early_stopping_patience=3", "set checkpoint.monitor=val_loss data.validation_data_path=FILE")],
    ),
    (SEEING + " checkpoint.monitor=val_loss", [("checkpoint.monitor=val_loss", "set checkpoint.monitor=none")]),
    (SEEING + " name=.hidden", [("name=.hidden", "set name=hidden")]),
    # Several at once.
    (
        SEEING + " data.global_batch_size=100 optim.min_lr=1 model.use_im_start_end=true data.sequence_length=5000",
        [
            ("data.sequence_length=5000", "set data.sequence_length=4096"),
            ("data.global_batch_size=100", "set data.global_batch_size=96"),
            ("optim.min_lr=1.0", "set optim.min_lr=2e-05"),
        ],
    ),
]


def errors_of(arguments, capfd):
    assert main(arguments) == 2
    lines = capfd.readouterr().err.splitlines()
    return [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]


def assert_named(lines, expected):
    assert len(lines) == len(expected), lines
    for line, (field, remedy) in zip(lines, expected, strict=True):
        assert field in line.partition(": ")[0] and remedy in line.partition("; ")[2], line


@pytest.mark.parametrize(("command", "expected"), OVERRIDES, ids=[command for command, _ in OVERRIDES])
def test_overrides(command, expected, folder, capfd):
    assert_named(errors_of([*command.split(), "--dry-run"], capfd), expected)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("command", "expected"), OVERRIDES[::7], ids=[command for command, _ in OVERRIDES[::7]])
def test_a_launch_refuses_with_the_first(command, expected, folder, capfd):
    words = [word for word in command.split() if word != "--gpu" and "0g" not in word]
    (line,) = errors_of(words, capfd)
    more = f" (and {len(expected) - 1} more: --dry-run lists them)"
    assert line.endswith(more) == (len(expected) > 1)
    assert_named([line], expected[:1])
    assert list(folder.iterdir()) == []


# Lines of a saved recipe, what stands there instead, and the errors.
FILES = [
    (
        "num_query_groups: 32",
        "num_query_groups: 24",
        [
            ("model.language.num_query_groups=24", "=16"),
            ("model.language.from_pretrained=lmsys/vicuna-7b-v1.5", "set model.language.num_query_groups=32"),
        ],
    ),
    ("max_steps: 5198", "max_steps: null", [("trainer.max_steps=none", "set trainer.max_epochs=1")]),
    ("global_batch_size: 128", "global_batch_size: 200", [("data.global_batch_size=200", "=192")]),
    ("recompute_num_layers: 1", "recompute_num_layers: 64", [("model.recompute_num_layers=64", "=32")]),
    ("fp8: null", "fp8: hybrid\n  fp8_recipe: mxfp8\n  fp8_param: true", [("precision.fp8_param=true", "=false")]),
    ("image_token_len: null", "image_token_len: 577", [("model.vision.image_token_len=577", "=576")]),
    ("name: llava.finetune", "name: a/b", [("name=a/b", "set name=a-b")]),
]


@pytest.mark.parametrize(("line", "instead", "expected"), FILES, ids=[instead for _, instead, _ in FILES])
def test_saved_recipes(line, instead, expected, folder, capfd):
    text = recipe_to_yaml(make("llava.finetune"))
    for field in ("fp8_recipe: delayed", "fp8_param: false") if instead.startswith("fp8") else ():
        text = text.replace(f"  {field}\n", "")
    assert text.count(f"{line}\n") == 1
    saved = folder / "saved.yaml"
    saved.write_text(text.replace(f"{line}\n", f"{instead}\n"), encoding="utf-8")
    assert_named(errors_of(["saved.yaml", "--dry-run"], capfd), expected)
    assert list(folder.iterdir()) == [saved]


PYTHON = """
from neva_recipes import gpt, llava, parts
from neva_recipes.config import TextDataConfig, config

def blind():
    "Text for a model with eyes."
    recipe = llava.finetune()
    recipe.data = config(TextDataConfig)
    return recipe

def small_tower():
    "A tower of 224 pixels in a recipe that says how many tokens 336 make."
    recipe = llava.finetune()
    recipe.model.vision.image_token_len = 576
    recipe.model.vision.image_size = 224
    return recipe

def frozen(size: str = "tiny"):
    "Nothing to train."
    recipe = gpt.pretrain(size)
    recipe.model.language.freeze = True
    return recipe

def eyes():
    "Text with a vision tower and no projector."
    recipe = gpt.pretrain("tiny")
    recipe.model.vision = parts.clip_tiny()
    return recipe
"""

RECIPES = [
    ("blind", [("", "set model.vision=none model.projector=none, or give the recipe data of class LlavaDataConfig")]),
    (
        "small_tower",
        [
            ("model.vision.image_token_len=576", "set model.vision.image_token_len=256"),
            ("model.vision.from_pretrained=openai/clip-vit-large-patch14-336", "set model.vision.image_size=336"),
        ],
    ),
    ("frozen size=7b", [("model.language.freeze=true", "set model.language.freeze=false")]),
    ("frozen optim.min_lr=1", [("freeze=true", "freeze=false"), ("optim.min_lr=1.0", "set optim.min_lr=0.001")]),
    ("eyes", [("model.projector=none", "set model.vision=none"), ("", "set model.vision=none model.projector=none")]),
]


@pytest.mark.parametrize(("command", "expected"), RECIPES, ids=[command for command, _ in RECIPES])
def test_recipes_in_python(command, expected, folder, capfd):
    path = folder / "mine.py"
    path.write_text(PYTHON, encoding="utf-8")
    assert_named(errors_of([*command.split(), "--recipes", "mine.py", "--dry-run"], capfd), expected)
    assert list(folder.iterdir()) == [path]


def test_as_processes(nemo_run, folder):
    (folder / "mine.py").write_text(PYTHON, encoding="utf-8")
    (folder / "saved.yaml").write_text(recipe_to_yaml(make("llava.finetune", "optim.min_lr=1")), encoding="utf-8")
    before = sorted(folder.iterdir())
    commands = (
        ["llava.finetune", "data.global_batch_size=100", "trainer.max_epochs=1", "--dry-run"],
        ["saved.yaml", "trainer.max_epochs=1", "--dry-run"],
        ["frozen", "trainer.max_epochs=1", "--recipes", "mine.py", "--dry-run"],
    )
    for command in commands:
        done = nemo_run(*command, check=2)
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 2 and any("set trainer.max_epochs=none" in line for line in lines), done.stderr
    assert sorted(folder.iterdir()) == before
