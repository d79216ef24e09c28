"""For every code of a rule between fields, recipes that break it."""

import fiddle as fdl

from neva_recipes.config import Recipe, set_field
from neva_recipes.registry import find_recipe

__all__ = ["WRONG_FIELDS", "make"]


def make(name: str, overrides: str = "") -> fdl.Buildable[Recipe]:
    """Return a built-in recipe, such as `gpt.pretrain tiny`, with fields set as on the command line."""
    name, _, size = name.partition(" ")
    recipe = find_recipe(name).make({"size": size} if size else {})
    for word in overrides.split():
        set_field(recipe, *word.split("=", 1))
    return recipe


FINETUNE, TINY, TEXT, TINY_TEXT = "llava.finetune", "llava.finetune tiny", "gpt.pretrain", "gpt.pretrain tiny"

ROPE = "model.language.rope."
LINEAR, DYNAMIC = f"{ROPE}kind=linear {ROPE}", f"{ROPE}kind=dynamic {ROPE}factor=2 "
LANGUAGE, VISION, PARALLEL = "model.language.", "model.vision.", "parallel."
TENSOR, PIPELINE = "parallel.tensor_model_parallel_size=", "parallel.pipeline_model_parallel_size="
CONTEXT, VIRTUAL = "parallel.context_parallel_size=", "parallel.virtual_pipeline_model_parallel_size="
FIRST, LAST = "parallel.num_layers_in_first_pipeline_stage=", "parallel.num_layers_in_last_pipeline_stage="
FP8 = "precision.fp8=hybrid precision.fp8_recipe="
VALIDATED = "data.validation_data_path=v.json checkpoint.monitor=val_loss "
NO_RECOMPUTE = "model.recompute_method=none model.recompute_num_layers=none model.recompute_granularity="

# Code, severity, recipe, overrides that break the rule, type of GPU.
WRONG_FIELDS: list[tuple[str, str, str, str, str | None]] = [
    # The model.
    ("vision-and-projector", "error", FINETUNE, "model.vision=none", None),
    ("vision-and-projector", "error", FINETUNE, "model.projector=none", None),
    ("not-exportable", "warning", FINETUNE, "model.projector.mm_projector_type=mlp3x_gelu", None),
    ("adapter-targets", "error", FINETUNE, LANGUAGE + "lora.target_modules=q_proj,query", None),
    ("adapter-targets", "error", TINY, VISION + "lora.target_modules=gate_proj", None),
    ("adapter-targets", "error", TEXT, LANGUAGE + "lora.target_modules=[]", None),
    ("adapter-rank", "warning", "llava.lora", LANGUAGE + "lora.rank=4097", None),
    ("adapter-rank", "warning", TINY, VISION + "lora.rank=1024", None),
    ("adapter-layers", "error", TEXT, LANGUAGE + "lora.layers=30-32", None),
    ("adapter-layers", "error", TEXT, LANGUAGE + "lora.layers=0,8-4", None),
    ("adapter-layers", "error", TEXT, LANGUAGE + "lora.layers=32-40", None),
    ("adapter-layers", "error", FINETUNE, VISION + "lora.layers=23", None),
    ("adapter-groups", "error", FINETUNE, f"{LANGUAGE}lora.rank=8 {LANGUAGE}num_query_groups=2 {TENSOR}4", None),
    (
        "adapter-groups",
        "error",
        FINETUNE,
        f"{LANGUAGE}quantize=nf4 {LANGUAGE}freeze=true {LANGUAGE}num_query_groups=2 {TENSOR}4",
        None,
    ),
    ("adapter-vocabulary", "warning", FINETUNE, LANGUAGE + "lora.rank=8 model.use_im_start_end=true", None),
    ("quantize-trained", "error", FINETUNE, LANGUAGE + "quantize=nf4", None),
    ("quantize-fp8", "error", FINETUNE, f"{LANGUAGE}quantize=nf4 {LANGUAGE}lora.rank=8 {FP8}tensorwise", None),
    ("lr-of", "error", FINETUNE, "optim.lr_of.vision=1e-5", None),
    ("lr-of", "error", FINETUNE, "optim.lr_of.language.layers.32.*=1e-5", None),
    ("image-marks", "error", TEXT, "model.use_im_start_end=true", None),
    ("all-frozen", "error", FINETUNE, LANGUAGE + "freeze=true model.projector.freeze=true", None),
    ("all-frozen", "error", TEXT, LANGUAGE + "freeze=true", None),
    ("hidden-heads", "error", FINETUNE, LANGUAGE + "hidden_size=4100", None),
    ("query-groups", "error", FINETUNE, LANGUAGE + "num_query_groups=12", None),
    ("head-size-odd", "error", TINY, LANGUAGE + "kv_channels=33", None),
    ("head-size-odd", "error", TINY, LANGUAGE + "hidden_size=132", None),
    ("head-size", "warning", TINY, LANGUAGE + "kv_channels=36", None),
    ("head-size", "warning", TINY, LANGUAGE + "kv_channels=512", None),
    ("sliding-window", "error", TINY_TEXT, LANGUAGE + "sliding_window=64", None),
    ("sliding-window", "error", TINY, LANGUAGE + "family=qwen3 " + LANGUAGE + "sliding_window=64", None),
    ("family-heads", "error", TINY_TEXT, LANGUAGE + "family=gpt2 " + LANGUAGE + "num_query_groups=2", None),
    ("family-heads", "error", TINY_TEXT, LANGUAGE + "family=gpt2 " + LANGUAGE + "kv_channels=64", None),
    ("learned-positions", "error", TINY_TEXT, LANGUAGE + "family=gpt2 " + LANGUAGE + "rotary_base=5000", None),
    ("learned-positions", "error", TINY_TEXT, LANGUAGE + "family=gpt2 " + LANGUAGE + "rope_scaling_factor=8", None),
    ("learned-positions", "error", TINY_TEXT, LANGUAGE + "family=gpt2 " + LINEAR + "factor=2", None),
    ("rope-scaling", "warning", TEXT, LANGUAGE + "rope_scaling_factor=1", None),
    ("rope-scaling", "warning", TEXT, LINEAR + "factor=0.5", None),
    ("rope-parameters", "error", TEXT, ROPE + "kind=yarn", None),
    ("rope-parameters", "error", TEXT, LINEAR + "factor=2 " + ROPE + "beta_fast=32", None),
    ("rope-parameters", "error", TEXT, ROPE + "kind=default " + ROPE + "partial_rotary_factor=0.5", None),
    ("rope-parameters", "error", TEXT, LINEAR + "factor=2 " + LANGUAGE + "rope_scaling_factor=8", None),
    ("rope-length", "warning", TINY, DYNAMIC + "data.sequence_length=1024 data.micro_batch_size=2", None),
    ("sequence-positions", "error", FINETUNE, "data.sequence_length=8192", None),
    ("random-and-frozen", "warning", "llava.pretrain", LANGUAGE + "from_pretrained=none", None),
    ("random-and-frozen", "warning", FINETUNE, "model.vision.from_pretrained=none", None),
    ("random-and-frozen", "warning", FINETUNE, "model.projector.freeze=true", None),
    ("random-and-frozen", "warning", TINY, LANGUAGE + "lora.rank=8", None),
    ("random-and-frozen", "warning", TINY, VISION + "lora.rank=8", None),
    ("random-weights", "warning", TINY, "model.projector.from_pretrained=none", None),
    (
        "random-weights",
        "warning",
        "llava.pretrain",
        "model.vision.from_pretrained=none model.vision.freeze=false",
        None,
    ),
    ("random-weights", "warning", TINY, "model.language.from_pretrained=none", None),
    ("dropout", "error", FINETUNE, LANGUAGE + "attention_dropout=1", None),
    ("dropout-frozen", "warning", "llava.pretrain", LANGUAGE + "hidden_dropout=0.1", None),
    ("vocabulary-padding", "warning", FINETUNE, LANGUAGE + "make_vocab_size_divisible_by=65536", None),
    # The vision tower.
    ("vision-heads", "error", FINETUNE, VISION + "num_attention_heads=15", None),
    (
        "vision-feed-forward",
        "error",
        FINETUNE,
        VISION + "vision_model_type=dinov2 " + VISION + "hidden_act=gelu " + VISION + "ffn_hidden_size=4000",
        None,
    ),
    ("position-image-size", "error", FINETUNE, VISION + "position_image_size=518", None),
    ("image-patches", "error", FINETUNE, VISION + "image_size=340", None),
    ("image-patches", "error", FINETUNE, VISION + "vision_model_type=siglip " + VISION + "image_size=10", None),
    ("vision-select-layer", "error", FINETUNE, VISION + "vision_select_layer=25", None),
    ("vision-select-layer", "error", FINETUNE, VISION + "vision_select_layer=-26", None),
    ("vision-no-layer", "warning", FINETUNE, VISION + "vision_select_layer=0", None),
    (
        "vision-class-token",
        "warning",
        FINETUNE,
        VISION + "vision_model_type=siglip " + VISION + "vision_select_feature=cls_patch",
        None,
    ),
    ("vision-activation", "warning", FINETUNE, VISION + "vision_model_type=siglip", None),
    ("image-token-len", "error", FINETUNE, VISION + "image_token_len=256", None),
    # The data.
    ("data-needs-vision", "error", FINETUNE, "model.vision=none model.projector=none", None),
    ("image-does-not-fit", "error", FINETUNE, "data.sequence_length=576", None),
    ("image-does-not-fit", "error", TINY, VISION + "image_size=448", None),
    ("template-without-questions", "warning", FINETUNE, "data.conv_template=plain", None),
    ("image-marks-template", "warning", FINETUNE, "model.use_im_start_end=true data.conv_template=plain", None),
    ("grouping", "error", FINETUNE, "data.dataloader_type=single", None),
    ("single-pass", "error", TEXT, "data.dataloader_type=single trainer.max_steps=none trainer.max_epochs=2", None),
    ("row-multiple", "warning", TEXT, "data.sequence_length=4095", None),
    ("blend", "error", TEXT, "data.data_path=a.txt data.blend=1", None),
    ("blend", "error", TEXT, "data.data_path=a/train.idx,b/train.idx data.blend=0.7,0.2,0.1", None),
    ("blend", "error", TEXT, "data.data_path=a/train.idx data.blend=1 data.dataloader_type=single", None),
    ("tokens-and-text", "error", TEXT, "data.data_path=a/train.idx,b.txt", None),
    ("tokens-and-text", "error", FINETUNE, "data.data_path=a/train.idx", None),
    ("row-multiple", "warning", TEXT, "data.sequence_length=4088 precision.fp8=hybrid", None),
    ("row-multiple", "warning", TEXT, "data.sequence_length=4064 " + FP8 + "mxfp8", None),
    # The layout.
    ("tensor-parallel-heads", "error", FINETUNE, TENSOR + "3", None),
    (
        "tensor-parallel-groups",
        "error",
        FINETUNE,
        LANGUAGE
        + "num_attention_heads=24 "
        + LANGUAGE
        + "kv_channels=128 "
        + LANGUAGE
        + "num_query_groups=6 "
        + TENSOR
        + "4",
        None,
    ),
    (
        "tensor-parallel-projection",
        "error",
        TINY,
        LANGUAGE
        + "num_attention_heads=8 "
        + LANGUAGE
        + "num_query_groups=1 "
        + LANGUAGE
        + "kv_channels=2 "
        + TENSOR
        + "8",
        None,
    ),
    ("tensor-parallel-ffn", "error", FINETUNE, LANGUAGE + "ffn_hidden_size=11009 " + TENSOR + "2", None),
    ("sequence-parallel", "error", FINETUNE, "parallel.sequence_parallel=true", None),
    ("context-parallel-heads", "error", TINY, CONTEXT + "3 parallel.cp_comm_type=a2a", None),
    (
        "context-parallel-heads",
        "error",
        TINY,
        LANGUAGE + "num_query_groups=1 " + CONTEXT + "2 parallel.cp_comm_type=a2a",
        None,
    ),
    (
        "context-parallel-window",
        "error",
        TINY_TEXT,
        LANGUAGE + "family=mistral " + LANGUAGE + "sliding_window=64 " + CONTEXT + "2 trainer.devices=2",
        None,
    ),
    ("context-type-unused", "warning", FINETUNE, "parallel.cp_comm_type=all_gather", None),
    ("overlap-param-gather", "error", FINETUNE, "parallel.overlap_param_gather=true", None),
    ("world-size", "error", FINETUNE, "trainer.devices=6 " + TENSOR + "4", None),
    ("world-size", "error", FINETUNE, CONTEXT + "3", None),
    ("global-batch", "error", FINETUNE, "data.global_batch_size=100", None),
    ("global-batch", "error", FINETUNE, "data.global_batch_size=16", None),
    ("pipeline-layers", "error", FINETUNE, PIPELINE + "5", None),
    ("uneven-stages", "error", FINETUNE, PIPELINE + "4 " + FIRST + "6", None),
    ("uneven-stages", "error", FINETUNE, PIPELINE + "2 " + FIRST + "15 " + LAST + "16", None),
    ("uneven-stages", "error", FINETUNE, FIRST + "30", None),
    ("uneven-stages", "error", FINETUNE, FIRST + "31 " + LAST + "1", None),
    ("virtual-pipeline", "error", FINETUNE, VIRTUAL + "2", None),
    ("virtual-layers", "error", FINETUNE, PIPELINE + "2 " + VIRTUAL + "3", None),
    ("virtual-layers", "error", FINETUNE, PIPELINE + "3 " + FIRST + "11 " + LAST + "11 " + VIRTUAL + "2", None),
    ("virtual-ends", "error", FINETUNE, PIPELINE + "2 " + VIRTUAL + "2 " + FIRST + "20 " + LAST + "12", None),
    ("virtual-microbatches", "error", FINETUNE, PIPELINE + "4 " + VIRTUAL + "2 data.micro_batch_size=32", None),
    ("pipeline-bubble", "warning", FINETUNE, PIPELINE + "4 data.micro_batch_size=8", None),
    # Recomputation.
    ("recompute-incomplete", "error", FINETUNE, "model.recompute_num_layers=none", None),
    ("recompute-unused", "error", FINETUNE, "model.recompute_granularity=none", None),
    ("recompute-unused", "error", FINETUNE, "model.recompute_granularity=selective", None),
    (
        "recompute-unused",
        "warning",
        TINY,
        "model.recompute_granularity=selective model.recompute_method=block model.recompute_modules=mlp",
        None,
    ),
    ("recompute-layers", "error", FINETUNE, "model.recompute_num_layers=5", None),
    ("recompute-layers", "error", FINETUNE, "model.recompute_num_layers=33 model.recompute_method=block", None),
    ("recompute-layers", "error", FINETUNE, "model.recompute_num_layers=16 " + PIPELINE + "4", None),
    ("recompute-modules", "error", TINY, "model.recompute_modules=mlp", None),
    ("recompute-modules", "warning", FINETUNE, "model.recompute_modules=mlp", None),
    (
        "recompute-norms-fp8",
        "error",
        FINETUNE,
        NO_RECOMPUTE + "selective model.recompute_modules=layernorm precision.fp8=e4m3",
        None,
    ),
    (
        "recompute-norms-cpu",
        "error",
        TINY,
        "model.recompute_granularity=selective model.recompute_modules=layernorm trainer.accelerator=cpu",
        None,
    ),
    (
        "recompute-bias",
        "error",
        TINY_TEXT,
        NO_RECOMPUTE + "selective model.recompute_modules=mlp " + LANGUAGE + "family=gpt2",
        None,
    ),
    ("recompute-norms", "warning", FINETUNE, NO_RECOMPUTE + "selective model.recompute_modules=mlp,layernorm", None),
    ("recompute-attention", "warning", FINETUNE, NO_RECOMPUTE + "selective", None),
    # Precision.
    ("fp8-precision", "error", TINY, "precision.fp8=hybrid", None),
    ("fp8-cpu", "error", FINETUNE, "precision.fp8=hybrid trainer.accelerator=cpu", None),
    ("fp8-param", "error", FINETUNE, "precision.fp8_param=true", None),
    (
        "fp8-param-optimizer",
        "error",
        FINETUNE,
        "precision.fp8=hybrid precision.fp8_param=true parallel.use_distributed_optimizer=false",
        None,
    ),
    ("fp8-param-mxfp8", "error", FINETUNE, FP8 + "mxfp8 precision.fp8_param=true", None),
    ("fp8-param-rounded", "warning", FINETUNE, "precision.fp8=hybrid precision.fp8_param=true", None),
    ("fp8-sizes", "error", TEXT, "precision.fp8=hybrid " + LANGUAGE + "ffn_hidden_size=11016", None),
    ("fp8-sizes", "error", FINETUNE, FP8 + "mxfp8 " + LANGUAGE + "ffn_hidden_size=11024", None),
    (
        "fp8-sizes",
        "error",
        FINETUNE,
        "precision.fp8=hybrid " + LANGUAGE + "hidden_size=4104 " + LANGUAGE + "kv_channels=128",
        None,
    ),
    ("fp8-sizes", "error", FINETUNE, "precision.fp8=hybrid " + LANGUAGE + "kv_channels=4 " + TENSOR + "16", None),
    ("fp8-delayed-options", "error", FINETUNE, FP8 + "tensorwise precision.fp8_amax_history_len=16", None),
    ("fp8-delayed-options", "error", FINETUNE, FP8 + "blockwise precision.fp8_margin=1", None),
    ("fp8-unused", "warning", FINETUNE, "precision.fp8_recipe=blockwise", None),
    ("fp8-unused", "warning", FINETUNE, "precision.first_last_layers_bf16=true", None),
    ("fp8-edges-unused", "warning", FINETUNE, "precision.num_layers_at_start_in_bf16=2", None),
    ("fp8-edges-delayed", "error", FINETUNE, "precision.fp8=hybrid precision.first_last_layers_bf16=true", None),
    (
        "fp8-edges",
        "error",
        FINETUNE,
        FP8
        + "tensorwise precision.first_last_layers_bf16=true precision.num_layers_at_end_in_bf16=9 "
        + PIPELINE
        + "4",
        None,
    ),
    (
        "fp8-edges-all-or-none",
        "warning",
        FINETUNE,
        FP8 + "tensorwise precision.first_last_layers_bf16=true precision.num_layers_at_end_in_bf16=31",
        None,
    ),
    ("fp8-vision", "warning", FINETUNE, "precision.fp8=hybrid model.vision.freeze=false", None),
    ("context-parallel-precision", "error", TINY, CONTEXT + "2 trainer.accelerator=gpu", None),
    ("context-parallel-precision", "warning", TINY, CONTEXT + "2", None),
    (
        "context-parallel-head-size",
        "error",
        FINETUNE,
        LANGUAGE + "kv_channels=36 " + CONTEXT + "2 trainer.accelerator=gpu",
        None,
    ),
    ("context-parallel-head-size", "warning", FINETUNE, LANGUAGE + "kv_channels=36 " + CONTEXT + "2", None),
    ("fp8-hardware", "error", FINETUNE, "precision.fp8=hybrid", "a100-80g"),
    ("fp8-hardware", "error", FINETUNE, FP8 + "mxfp8", "h100-80g"),
    ("fp8-hardware", "error", FINETUNE, FP8 + "blockwise", "l40s"),
    ("fp8-blockwise", "warning", FINETUNE, FP8 + "blockwise", "b200"),
    # Training.
    ("length", "error", FINETUNE, "trainer.max_epochs=1", None),
    ("length", "error", FINETUNE, "trainer.max_steps=none", None),
    ("min-lr", "error", FINETUNE, "optim.min_lr=1e-4", None),
    ("min-lr-unused", "warning", FINETUNE, "optim.lr_decay_style=constant optim.min_lr=1e-6", None),
    ("lr-large", "warning", FINETUNE, "optim.lr=2e-4", None),
    ("lr-large", "warning", "llava.lora", LANGUAGE + "lora=none", None),
    ("lr-large", "warning", "llava.lora", "optim.lr_of.language=2", None),
    ("lr-large", "warning", "llava.lora", "optim.lr_of.projector=2", None),
    ("lr-small", "warning", FINETUNE, LANGUAGE + "lora.rank=64", None),
    ("lr-small", "warning", "llava.lora", "optim.lr=1e-5", None),
    ("lr-decay-unused", "warning", TINY_TEXT, "optim.lr_decay_style=constant optim.lr_decay_steps=9", None),
    ("lr-zero", "warning", FINETUNE, "optim.lr_decay_steps=400", None),
    ("lr-decay-short", "error", TINY_TEXT, "optim.lr_decay_steps=9", None),
    ("warmup-twice", "error", FINETUNE, "optim.warmup_steps=10", None),
    ("warmup-too-long", "warning", "neva.finetune", "trainer.max_steps=100", None),
    ("warmup-too-long", "warning", FINETUNE, "optim.warmup_ratio=1", None),
    ("warmup-too-long", "warning", FINETUNE, "trainer.max_steps=1", None),
    (
        "warmup-too-long",
        "warning",
        FINETUNE,
        "trainer.max_steps=300 optim.lr_decay_steps=10000 optim.min_lr=1e-6",
        None,
    ),
    ("adam-beta", "error", FINETUNE, "optim.adam_beta2=1", None),
    ("seed", "error", FINETUNE, "trainer.seed=4294967296", None),
    ("average-fixed", "error", FINETUNE, "trainer.ema_decay=1", None),
    ("average-unused", "warning", FINETUNE, "trainer.ema_decay=0", None),
    # Validation and checkpoints.
    ("monitor-without-validation", "error", FINETUNE, "checkpoint.monitor=val_loss", None),
    ("early-stopping", "error", FINETUNE, "trainer.early_stopping_patience=2", None),
    (
        "early-stopping",
        "error",
        FINETUNE,
        "trainer.early_stopping_patience=2 checkpoint.monitor=reduced_train_loss",
        None,
    ),
    ("early-stopping-late", "warning", FINETUNE, VALIDATED + "trainer.early_stopping_patience=2", None),
    ("validation-unused", "warning", FINETUNE, "trainer.val_check_interval=100 trainer.limit_val_batches=4", None),
    ("validation-never", "warning", FINETUNE, "data.validation_data_path=v trainer.val_check_interval=6000", None),
    ("monitor-at-end", "warning", FINETUNE, VALIDATED, None),
    ("monitor-out-of-step", "warning", FINETUNE, VALIDATED + "trainer.val_check_interval=300", None),
    ("nothing-kept", "warning", FINETUNE, "checkpoint.save_top_k=0 checkpoint.save_last=false", None),
    ("monitor-unused", "warning", FINETUNE, VALIDATED + "checkpoint.save_top_k=-1", None),
    ("monitor-mode", "warning", FINETUNE, "checkpoint.mode=max", None),
    # Names.
    ("name", "error", FINETUNE, "name=a/b", None),
    ("name", "error", FINETUNE, "name=-x", None),
    ("name", "error", FINETUNE, "name=" + "ä" * 101, None),
    ("wandb-project", "warning", FINETUNE, "logging.wandb_entity=mylab", None),
    # What runs and wastes.
    ("tensor-parallel-nodes", "warning", FINETUNE, TENSOR + "8 trainer.num_nodes=2 trainer.devices=4", None),
    ("sequence-parallel-off", "warning", FINETUNE, TENSOR + "2", None),
    ("optimizer-whole", "warning", FINETUNE, "parallel.use_distributed_optimizer=false", None),
    ("overlap-unused", "warning", TINY, "parallel.overlap_grad_reduce=true", None),
    ("loading-waits", "warning", FINETUNE, "trainer.accelerator=gpu data.num_workers=0", None),
]
