"""Random recipes: every remedy mends what it was named for, and what has no error has a layout."""

import copy
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neva_recipes import gpt, llava, neva
from neva_recipes.config import RecipeError, TextDataConfig, build, config, format_value, iterate_fields, set_field
from neva_recipes.plan import check_recipe, layout_of
from neva_recipes.plan.checks import is_valid, with_values
from neva_recipes.plan.cost.gpus import GPUS

BASES = (
    lambda: llava.finetune("tiny"),
    lambda: llava.finetune("7b"),
    lambda: llava.pretrain("13b"),
    lambda: neva.finetune("7b"),
    lambda: gpt.pretrain("tiny"),
    lambda: gpt.pretrain("7b"),
)

# Values that break rules and values that keep them, for every field that a rule looks at.
SMALL = ("1", "2", "3", "4", "5", "6", "8", "12", "16")
VALUES = MappingProxyType(
    {
        "name": ("a", "-x", "a/b", "ä" * 120),
        "model.language.num_layers": ("4", "5", "32", "40"),
        "model.language.hidden_size": ("66", "128", "132", "4096", "4100"),
        "model.language.ffn_hidden_size": ("100", "384", "11008", "11009"),
        "model.language.num_attention_heads": ("1", "4", "6", "32", "40"),
        "model.language.num_query_groups": ("1", "2", "4", "5", "8", "32"),
        "model.language.kv_channels": ("none", "1", "2", "4", "33", "36", "64", "128", "300"),
        "model.language.vocab_size": ("7", "513", "32000"),
        "model.language.max_position_embeddings": ("256", "512", "4096"),
        "model.language.rope_scaling_factor": ("none", "0.5", "1", "8"),
        "model.language.family": ("llama", "mistral"),
        "model.language.sliding_window": ("none", "1", "64"),
        "model.language.hidden_dropout": ("0", "0.1", "1"),
        "model.language.freeze": ("true", "false"),
        "model.language.from_pretrained": ("none", "weights"),
        "model.projector": ("none",),
        "model.vision": ("none",),
        "model.vision.hidden_size": ("128", "1000", "1024"),
        "model.vision.num_attention_heads": ("3", "4", "16"),
        "model.vision.image_size": ("7", "56", "60", "336", "672"),
        "model.vision.patch_size": ("8", "14", "400"),
        "model.vision.vision_model_type": ("clip", "siglip", "dinov2"),
        "model.vision.vision_select_layer": ("-30", "-25", "-5", "-2", "0", "24", "30"),
        "model.vision.vision_select_feature": ("patch", "cls_patch"),
        "model.vision.image_token_len": ("none", "16", "256"),
        "model.vision.freeze": ("true", "false"),
        "model.projector.freeze": ("true", "false"),
        "model.use_im_start_end": ("true", "false"),
        "model.recompute_granularity": ("none", "full", "selective"),
        "model.recompute_method": ("none", "uniform", "block"),
        "model.recompute_num_layers": ("none", *SMALL, "40"),
        "model.recompute_modules": ("none", "mlp", "core_attn", "layernorm", "mlp,layernorm"),
        "data.sequence_length": ("16", "100", "500", "512", "2048", "4095", "9000"),
        "data.micro_batch_size": SMALL,
        "data.global_batch_size": ("1", "7", "24", "64", "96", "128", "100"),
        "data.dataloader_type": ("cyclic", "single"),
        "data.conv_template": ("plain", "v1", "llama_2", "nvgpt"),
        "data.group_by_modality_length": ("true", "false"),
        "data.validation_data_path": ("none", "v.json"),
        "data.num_workers": ("0", "2"),
        "parallel.tensor_model_parallel_size": SMALL,
        "parallel.pipeline_model_parallel_size": SMALL,
        "parallel.virtual_pipeline_model_parallel_size": ("none", "1", "2", "3", "4"),
        "parallel.num_layers_in_first_pipeline_stage": ("none", *SMALL, "32", "33"),
        "parallel.num_layers_in_last_pipeline_stage": ("none", *SMALL, "32", "33"),
        "parallel.context_parallel_size": ("1", "2", "3", "4"),
        "parallel.cp_comm_type": ("p2p", "all_gather", "a2a"),
        "parallel.sequence_parallel": ("true", "false"),
        "parallel.use_distributed_optimizer": ("true", "false"),
        "parallel.overlap_grad_reduce": ("true", "false"),
        "parallel.overlap_param_gather": ("true", "false"),
        "precision.precision": ("bf16", "fp32"),
        "precision.fp8": ("none", "hybrid", "e4m3"),
        "precision.fp8_recipe": ("delayed", "tensorwise", "blockwise", "mxfp8"),
        "precision.fp8_amax_history_len": ("16", "1024"),
        "precision.fp8_margin": ("0", "1"),
        "precision.fp8_param": ("true", "false"),
        "precision.first_last_layers_bf16": ("true", "false"),
        "precision.num_layers_at_start_in_bf16": ("0", "1", "4", "50"),
        "precision.num_layers_at_end_in_bf16": ("0", "1", "4", "50"),
        "optim.lr": ("1e-3", "1e-6"),
        "optim.min_lr": ("0", "1e-4"),
        "optim.lr_decay_style": ("cosine", "constant"),
        "optim.lr_decay_steps": ("none", "1", "10", "9999"),
        "optim.warmup_steps": ("none", "0", "10", "9999"),
        "optim.warmup_ratio": ("none", "0.03", "1"),
        "optim.adam_beta1": ("0.9", "1"),
        "trainer.accelerator": ("auto", "gpu", "cpu"),
        "trainer.num_nodes": ("1", "2", "3"),
        "trainer.devices": ("none", "1", "2", "4", "6", "8"),
        "trainer.max_steps": ("none", "1", "100", "5000"),
        "trainer.max_epochs": ("none", "1", "2"),
        "trainer.val_check_interval": ("none", "1", "300", "9999"),
        "trainer.limit_val_batches": ("none", "2"),
        "trainer.seed": ("1", "99999999999"),
        "trainer.early_stopping_patience": ("none", "1", "3"),
        "trainer.ema_decay": ("none", "0", "0.99", "1"),
        "checkpoint.every_n_train_steps": ("none", "500", "7"),
        "checkpoint.save_top_k": ("-1", "0", "1"),
        "checkpoint.save_last": ("true", "false"),
        "checkpoint.monitor": ("none", "val_loss", "reduced_train_loss"),
        "checkpoint.mode": ("min", "max"),
        "logging.wandb_entity": ("none", "mylab"),
    }
)


@st.composite
def recipes(draw):
    recipe = draw(st.sampled_from(BASES))()
    if draw(st.integers(0, 19)) == 0:
        recipe.data = config(TextDataConfig)
    for path in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=12, unique=True)):
        try:
            set_field(recipe, path, draw(st.sampled_from(VALUES[path])))
        except RecipeError:
            assert path.split(".")[1] in ("vision", "projector") or path.startswith("data.")  # not in this recipe
    return recipe


def same(finding, other):
    return (finding.code, *finding.fields) == (other.code, *other.fields)


def errors(findings):
    return {(finding.code, *finding.fields) for finding in findings if finding.severity == "error"}


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(recipes(), st.sampled_from([None, *GPUS.values()]))
def test_every_remedy_mends_what_it_is_named_for(recipe, gpu):
    built = build(recipe)
    findings = check_recipe(built, gpu)
    assert is_valid(built, gpu) == (not errors(findings))
    for finding in findings:
        for remedy in finding.remedies:
            changed = copy.deepcopy(recipe)
            for path, value in remedy.items():
                set_field(changed, path, format_value(value))
            mended = build(changed)
            assert mended == with_values(built, remedy)
            after = check_recipe(mended, gpu)
            assert not any(same(finding, other) for other in after), finding.line()
            if finding.severity == "warning":
                assert errors(after) <= errors(findings), finding.line()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes())
def test_a_recipe_without_errors_has_a_layout(recipe):
    built = build(recipe)
    if not is_valid(built):
        return
    layout = layout_of(built)
    parallel = built.parallel
    layers = sorted(layer for stage in layout.stages for chunk in stage.chunks for layer in chunk)
    assert layers == list(range(built.model.language.num_layers))
    assert len(layout.stages) == parallel.pipeline_model_parallel_size
    assert all(stage.num_layers > 0 for stage in layout.stages)
    processes = layout.data_parallel_size * layout.model_parallel_size
    assert layout.world_size == len(layout.ranks) == processes == len(set(layout.ranks))
    samples = layout.num_microbatches * built.data.micro_batch_size * layout.data_parallel_size
    assert samples == built.data.global_batch_size


def test_every_field_that_a_rule_can_name_is_varied():
    """The values above are for fields that exist, and all of them are accepted by some recipe."""
    known = {field.path for base in BASES for field in iterate_fields(base())} | {"model.vision", "model.projector"}
    assert set(VALUES) <= known


@pytest.mark.parametrize("base", BASES)
def test_a_finding_is_the_same_twice(base):
    recipe = base()
    set_field(recipe, "parallel.tensor_model_parallel_size", "3")
    assert check_recipe(build(recipe)) == check_recipe(build(recipe))
