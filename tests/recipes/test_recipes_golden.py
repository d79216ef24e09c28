"""The built-in recipes hold the numbers that LLaVA-1.5 and NeVA were published with."""

import math

import pytest

from neva_recipes import gpt, llava, neva
from neva_recipes.config import build
from neva_recipes.families import image_length
from neva_recipes.plan import check_recipe, layout_of

# One row of the published table: field, llava.pretrain, llava.finetune. Both sizes share them.
LLAVA = [
    ("data.conv_template", "plain", "v1"),
    ("data.data_path", "blip_laion_cc_sbu_558k.json", "llava_v1_5_mix665k.json"),
    ("model.language.freeze", True, False),
    ("model.projector.freeze", False, False),
    ("model.vision.freeze", True, True),
    ("model.vision.vision_model_type", "clip", "clip"),
    ("model.vision.from_pretrained", "openai/clip-vit-large-patch14-336", "openai/clip-vit-large-patch14-336"),
    ("model.vision.image_size", 336, 336),
    ("model.vision.patch_size", 14, 14),
    ("model.vision.num_layers", 24, 24),
    ("model.vision.hidden_size", 1024, 1024),
    ("model.vision.ffn_hidden_size", 4096, 4096),
    ("model.vision.num_attention_heads", 16, 16),
    ("model.vision.hidden_act", "quick_gelu", "quick_gelu"),
    ("model.vision.vision_select_layer", -2, -2),
    ("model.vision.vision_select_feature", "patch", "patch"),
    ("model.projector.mm_projector_type", "mlp2x_gelu", "mlp2x_gelu"),
    ("data.image_aspect_ratio", "square", "pad"),
    ("data.group_by_modality_length", False, True),
    ("data.global_batch_size", 256, 128),
    ("optim.lr", 1e-3, 2e-5),
    ("optim.min_lr", 0.0, 0.0),
    ("optim.lr_decay_style", "cosine", "cosine"),
    ("optim.warmup_ratio", 0.03, 0.03),
    ("optim.warmup_steps", None, None),
    ("optim.weight_decay", 0.0, 0.0),
    ("optim.adam_beta1", 0.9, 0.9),
    ("optim.adam_beta2", 0.999, 0.999),
    ("optim.adam_eps", 1e-8, 1e-8),
    ("optim.clip_grad", 1.0, 1.0),
    ("data.sequence_length", 2048, 2048),
    ("precision.precision", "bf16", "bf16"),
    ("precision.fp8", None, None),
    ("model.recompute_granularity", "full", "full"),
    ("trainer.max_steps", 2181, 5198),
    ("model.use_im_start_end", False, False),
]

# The same for NeVA: field, neva.pretrain, neva.finetune.
NEVA = [
    ("data.conv_template", "llama_2", "llama_2"),
    ("data.image_aspect_ratio", "square", "pad"),
    ("model.language.freeze", True, False),
    ("model.projector.freeze", False, False),
    ("model.vision.freeze", True, True),
    ("model.vision.from_pretrained", "openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14"),
    ("model.vision.image_size", 224, 224),
    ("model.vision.patch_size", 14, 14),
    ("model.vision.image_token_len", 256, 256),
    ("model.vision.vision_select_layer", -2, -2),
    ("model.vision.vision_select_feature", "patch", "patch"),  # class_token_length 1: the class token is cut off
    ("model.projector.mm_projector_type", "linear", "linear"),
    ("model.language.hidden_dropout", 0.0, 0.0),
    ("model.language.attention_dropout", 0.0, 0.0),
    ("data.sequence_length", 4096, 4096),
    ("data.global_batch_size", 256, 128),
    ("optim.lr", 1e-3, 2e-5),
    ("optim.min_lr", 2e-5, 2e-7),
    ("optim.lr_decay_style", "cosine", "cosine"),
    ("optim.warmup_steps", 70, 150),
    ("optim.warmup_ratio", None, None),
    ("optim.weight_decay", 0.0, 0.0),
    ("optim.adam_beta1", 0.9, 0.9),
    ("optim.adam_beta2", 0.95, 0.95),
    ("trainer.max_steps", 2170, 5190),
]

# Llama-2 as published: layers, width, feed-forward width, heads.
LLAMA_2 = {"7b": (32, 4096, 11008, 32), "13b": (40, 5120, 13824, 40)}

LANGUAGE_MODELS = {
    ("llava", "7b"): "lmsys/vicuna-7b-v1.5",
    ("llava", "13b"): "lmsys/vicuna-13b-v1.5",
    ("neva", "7b"): "meta-llama/Llama-2-7b-chat-hf",
    ("neva", "13b"): "meta-llama/Llama-2-13b-chat-hf",
}

NEVA_TENSOR_PARALLEL = {"7b": 4, "13b": 8}

FUNCTIONS = {"llava": (llava.pretrain, llava.finetune), "neva": (neva.pretrain, neva.finetune)}

# The digits job: what was found to learn on a laptop. lr and steps of gpt.pretrain, llava.pretrain, llava.finetune.
TINY = [
    (gpt.pretrain, 1e-3, 100),
    (gpt.continue_pretrain, 1e-3, 100),
    (llava.pretrain, 3e-3, 400),
    (llava.finetune, 1e-3, 800),
]


def read(node, path):
    for name in path.split("."):
        node = getattr(node, name)
    return node


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("size", ["7b", "13b"])
@pytest.mark.parametrize(("family", "table"), [("llava", LLAVA), ("neva", NEVA)])
def test_published_hyperparameters(family, table, size, stage):
    recipe = build(FUNCTIONS[family][stage](size))
    assert image_length(recipe.model.vision) == (576 if family == "llava" else 256)
    found = {path: read(recipe, path) for path, *_ in table}
    assert found == {path: values[stage] for path, *values in table}


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize(("family", "size"), LANGUAGE_MODELS)
def test_published_language_models(family, size, stage):
    language = build(FUNCTIONS[family][stage](size)).model.language
    shape = (language.num_layers, language.hidden_size, language.ffn_hidden_size, language.num_attention_heads)
    assert shape == LLAMA_2[size]
    assert language.num_query_groups == language.num_attention_heads
    assert (language.vocab_size, language.max_position_embeddings) == (32000, 4096)
    assert (language.rotary_base, language.rope_scaling_factor, language.layernorm_epsilon) == (1e4, None, 1e-5)
    assert language.from_pretrained == LANGUAGE_MODELS[family, size]


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("size", ["7b", "13b"])
def test_neva_tensor_parallelism(size, stage):
    assert build(FUNCTIONS["neva"][stage](size)).parallel.tensor_model_parallel_size == NEVA_TENSOR_PARALLEL[size]


def test_steps_of_llava_are_one_epoch():
    # Samples in the two published files.
    assert math.ceil(558_128 / 256) == build(llava.pretrain()).trainer.max_steps
    assert math.ceil(665_298 / 128) == build(llava.finetune()).trainer.max_steps


@pytest.mark.parametrize(
    ("function", "size"),
    [(llava.pretrain, "7b"), (llava.finetune, "13b"), (neva.finetune, "13b"), (gpt.pretrain, "7b")],
)
def test_large_sizes_fill_one_machine_of_eight_gpus(function, size):
    layout = layout_of(build(function(size)))
    assert (layout.num_nodes, layout.processes_per_node) == (1, 8)


@pytest.mark.parametrize(("function", "lr", "steps"), TINY)
def test_tiny_is_the_digits_job(function, lr, steps):
    recipe = build(function("tiny"))
    language = recipe.model.language
    assert (language.num_layers, language.hidden_size, language.source) == (4, 128, None)
    assert (recipe.optim.lr, recipe.trainer.max_steps, recipe.data.global_batch_size) == (lr, steps, 64)
    assert recipe.precision.precision == "fp32"
    assert layout_of(recipe).world_size == 1
    if function not in (gpt.pretrain, gpt.continue_pretrain):
        vision = recipe.model.vision
        assert (vision.num_layers, vision.hidden_size, vision.image_size, vision.patch_size) == (4, 128, 56, 14)
        assert (image_length(vision), vision.vision_select_layer, vision.from_pretrained) == (16, -2, "random")
        assert recipe.model.projector.mm_projector_type == "mlp2x_gelu"


def test_llama_2_pretraining():
    recipe = build(gpt.pretrain("7b"))
    optim = recipe.optim
    assert recipe.data.sequence_length * recipe.data.global_batch_size == 4 * 1024**2  # tokens of a step
    assert (optim.lr, optim.min_lr, optim.warmup_steps, optim.weight_decay) == (3e-4, 3e-5, 2000, 0.1)
    assert (optim.adam_beta1, optim.adam_beta2, optim.adam_eps, optim.clip_grad) == (0.9, 0.95, 1e-5, 1.0)
    assert recipe.model.vision is None


def test_continued_pretraining():
    recipe = build(gpt.continue_pretrain("7b"))
    optim, language = recipe.optim, recipe.model.language
    assert language.from_pretrained == "meta-llama/Llama-2-7b-hf"
    assert recipe.data.sequence_length * recipe.data.global_batch_size == 2 * 1024**2  # tokens of a step
    assert (optim.lr, optim.min_lr, optim.warmup_ratio, optim.warmup_steps) == (1.2e-4, 1.2e-5, 0.01, None)
    assert (optim.weight_decay, optim.adam_beta1, optim.adam_beta2, optim.clip_grad) == (0.1, 0.9, 0.95, 1.0)
    assert (recipe.trainer.max_steps, recipe.trainer.max_epochs) == (None, 1)


def test_continued_pretraining_from_random_weights_is_warned_of():
    recipe = gpt.continue_pretrain("tiny")
    codes = [finding.code for finding in check_recipe(build(recipe))]
    assert "random-weights" in codes
    recipe.model.language.from_pretrained = "random"
    assert "random-weights" not in [finding.code for finding in check_recipe(build(recipe))]
    assert "random-weights" not in [finding.code for finding in check_recipe(build(gpt.pretrain("tiny")))]


# What differs from llava.finetune; the rest is the same.
LORA = {
    "name": "llava.lora",
    "model.language.lora.kind": "lora",
    "model.language.lora.rank": 128,
    "model.language.lora.scale": 256 / 128,
    "model.language.lora.dropout": 0.05,
    "model.language.lora.target_modules": None,
    "model.language.lora.layers": None,
    "optim.lr": 2e-4,
    "optim.lr_of": {"projector": 2e-5},
}
QLORA = {
    **LORA,
    "name": "llava.qlora",
    "model.language.lora.rank": 64,
    "model.language.lora.scale": 16 / 64,
    "model.language.quantize": "nf4",
}


@pytest.mark.parametrize("size", ["7b", "13b"])
@pytest.mark.parametrize(("function", "published"), [(llava.lora, LORA), (llava.qlora, QLORA)])
def test_adapters_as_published(function, published, size):
    recipe = build(function(size))
    for field, value in published.items():
        assert read(recipe, field) == value, field
    layout = ("data.micro_batch_size", "parallel.tensor_model_parallel_size", "parallel.sequence_parallel")
    for field, _, value in LLAVA:
        if field not in (*published, *layout):
            assert read(recipe, field) == value, field
    assert [finding.line() for finding in check_recipe(recipe) if finding.severity == "error"] == []
