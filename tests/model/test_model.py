"""What the model promises beside agreeing with transformers."""

import pytest
import torch
from megatron.core import tensor_parallel
from megatron.core.inference.contexts import StaticInferenceContext
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import Float16Module
from model_cases import DINOV2, VOCABULARY, batch, changed, llava_recipe, text_recipe

from neva_model.model import build_model, transformer_config
from neva_model.model.attention import SdpaCoreAttention
from neva_model.model.vision import encode_images
from neva_recipes.config import DataError, RecipeError
from neva_recipes.plan import layout_of
from neva_recipes.plan.cost.activations import vision_activations


def build(changes=None, recipe=None):
    return build_model(changed(recipe or llava_recipe(), changes or {}), pre_process=True, post_process=True)


def loss_and_gradients(model, case, scale=1.0):
    loss = model(case["tokens"], case["position_ids"], case["images"], case["labels"])
    (loss.sum() * scale).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return loss, gradients


@pytest.mark.parametrize("text_only", [False, True])
def test_padding_of_the_vocabulary_changes_nothing(text_only):
    recipe = text_recipe() if text_only else llava_recipe()
    case = batch([0, 0] if text_only else [1, 2], 20)
    padded, bare = (build({"model.language.make_vocab_size_divisible_by": multiple}, recipe) for multiple in (128, 1))
    assert padded.language.output_layer.weight.shape[0] == 128
    assert bare.language.output_layer.weight.shape[0] == VOCABULARY
    # Padding rows that are not zero, as after some other training, would show.
    with torch.no_grad():
        padded.language.output_layer.weight[VOCABULARY:] = 3.0
    loss, gradients = loss_and_gradients(padded, case)
    expected, expected_gradients = loss_and_gradients(bare, case)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    for name, gradient in gradients.items():
        rows = len(expected_gradients[name])
        torch.testing.assert_close(gradient[:rows], expected_gradients[name])
        assert (gradient[rows:] == 0).all(), name
    logits = padded(case["tokens"], case["position_ids"], case["images"])
    assert (logits.softmax(-1)[..., VOCABULARY:] == 0).all()


RECOMPUTE = {
    "full uniform": ("full", "uniform", 1, None),
    "full uniform in pairs": ("full", "uniform", 2, None),
    "full block": ("full", "block", 2, None),
    "attention": ("selective", None, None, ["core_attn"]),
    "mlp": ("selective", None, None, ["mlp"]),
    "both": ("selective", None, None, ["core_attn", "mlp"]),
    "default": ("selective", None, None, None),
}


@pytest.mark.parametrize("kind", RECOMPUTE)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("frozen", [False, True])
def test_recompute_changes_neither_loss_nor_gradients(kind, dropout, frozen):
    granularity, method, number, modules = RECOMPUTE[kind]
    base = {
        "model.language.hidden_dropout": dropout,
        "model.language.attention_dropout": dropout,
        "model.language.freeze": frozen,
    }
    recompute = {
        "model.recompute_granularity": granularity,
        "model.recompute_method": method,
        "model.recompute_num_layers": number,
        "model.recompute_modules": modules,
    }
    results = []
    recipe = llava_recipe(base)
    model_fields = {name.removeprefix("model."): value for name, value in recompute.items()}
    for model_config in (recipe.model, _replace(recipe.model, model_fields)):
        model = build(recipe=_replace(recipe, {"model": model_config}))
        tensor_parallel.model_parallel_cuda_manual_seed(99)
        results.append(loss_and_gradients(model.train(), batch([1, 2], 20)))
    (loss, gradients), (expected, expected_gradients) = reversed(results)
    assert torch.equal(loss, expected)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], msg=name)
        assert gradient.any(), name


def _replace(node, fields):
    import dataclasses

    return dataclasses.replace(node, **fields)


def test_dropout_is_drawn_anew_and_only_in_training():
    model = build({"model.language.hidden_dropout": 0.3, "model.language.attention_dropout": 0.3})
    case = batch([1, 1], 20)
    arguments = (case["tokens"], case["position_ids"], case["images"], case["labels"])
    assert not torch.equal(model(*arguments), model(*arguments))
    model.eval()
    assert torch.equal(model(*arguments), model(*arguments))


@pytest.mark.parametrize(
    ("groups", "window"), [(1, None), (2, None), (4, None), (2, 1), (2, 2), (2, 4), (2, 6), (2, 11), (2, 12), (2, 99)]
)
def test_attention_over_a_cache_continues_the_sequence(groups, window):
    """Prompt, single tokens and several tokens at once give what one pass over everything gives."""
    recipe = text_recipe({"model.language.num_query_groups": groups, "model.language.sliding_window": window})
    attention = SdpaCoreAttention(transformer_config(recipe), 1, AttnMaskType.causal, "self")
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(12, 3, 4, 8, generator=generator)
    key, value = (torch.randn(12, 3, groups, 8, generator=generator) for _ in range(2))
    whole = attention(query, key, value, None)
    scores = torch.einsum("qbhd,kbhd->bhqk", query, key.repeat_interleave(4 // groups, 2)) / 8**0.5
    distance = torch.arange(12)[:, None] - torch.arange(12)
    scores = scores.masked_fill((distance < 0) | (distance >= (window or 12)), -torch.inf)
    expected = torch.einsum("bhqk,kbhd->qbhd", scores.softmax(-1), value.repeat_interleave(4 // groups, 2))
    torch.testing.assert_close(whole, expected.flatten(2))
    for start, end in ((0, 5), (5, 6), (6, 10), (10, 12)):
        part = attention(query[start:end], key[:end], value[:end], None)
        torch.testing.assert_close(part, whole[start:end])


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 3])
def test_generation_with_a_cache_equals_full_passes(window):
    model = build({"model.language.family": "mistral", "model.language.sliding_window": window}).eval()
    case = batch([1, 1], 16)
    whole = model(case["tokens"], case["position_ids"], case["images"])
    context = StaticInferenceContext(2, 32)
    context.materialize_only_last_token_logits = False
    parts = []
    for start, end in ((0, 9), (9, 10), (10, 14), (14, 15), (15, 16)):
        images = case["images"] if start == 0 else None
        tokens, positions = case["tokens"][:, start:end], case["position_ids"][:, start:end]
        parts.append(model(tokens, positions, images, inference_context=context))
        context.increment_sequence_len_offset(end - start)
    torch.testing.assert_close(torch.cat(parts, 1)[..., :VOCABULARY], whole[..., :VOCABULARY], atol=1e-5, rtol=1e-5)


def test_images_go_to_their_places_in_order():
    model = build().eval()
    case = batch([2, 1], 20)
    swapped = case["images"][[1, 0, 2]]
    arguments = (case["tokens"], case["position_ids"])
    logits, other = model(*arguments, case["images"]), model(*arguments, swapped)
    assert not torch.allclose(logits[0], other[0], atol=1e-3)
    assert torch.equal(logits[1], other[1])


@pytest.mark.parametrize("trained", [False, True])
def test_text_only_microbatches_give_zero_gradients(trained):
    model = build({"model.vision.freeze": not trained})
    _, gradients = loss_and_gradients(model, batch([0, 0], 12))
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert gradient.any() == name.startswith("language."), name
    text = build(recipe=text_recipe())
    weights = {name: weight for name, weight in text.named_parameters() if name.startswith("language.")}
    for name, gradient in loss_and_gradients(text, batch([0, 0], 12))[1].items():
        assert torch.equal(gradient, gradients[name]), name
        assert torch.equal(weights[name], model.get_parameter(name)), name


def test_frozen_parts_stay_frozen():
    model = build({"model.language.freeze": True}).train()
    assert model.training and model.projector.training
    assert not any(module.training for module in model.vision.modules())
    assert {name.split(".")[0] for name, weight in model.named_parameters() if weight.requires_grad} == {"projector"}
    model = build({"model.vision.freeze": False}).train()
    assert all(module.training for module in model.vision.modules())
    trained = {name for name, weight in model.vision.named_parameters() if weight.requires_grad}
    assert any(name.startswith("encoder.layers.1.") for name in trained)
    # Layer 2 and the final norm lie above the selected hidden state.
    assert not any(name.startswith(("encoder.layers.2.", "post_layernorm")) for name in trained)
    _, gradients = loss_and_gradients(model, batch([1, 0], 12))
    assert all(gradient is not None for gradient in gradients.values())
    model = build({"model.projector.freeze": True})
    assert not any(weight.requires_grad for weight in model.projector.parameters())
    loss_and_gradients(model, batch([1, 0], 12))


@pytest.mark.parametrize("images", [None, 0, 1, 3])
def test_another_number_of_images_is_an_error(images):
    model = build()
    case = batch([1, 1], 16)
    given = None if images is None else torch.zeros(images, 3, 28, 28)
    with pytest.raises(DataError, match=f"8 image positions in the tokens, but {images or 0} images of 4 tokens"):
        model(case["tokens"], case["position_ids"], given, case["labels"])


def test_weights_depend_on_the_seed_and_nothing_else():
    first, again = build(), build()
    torch.rand(3)
    other = build({"trainer.seed": 7})
    for (name, one), two, three in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two), name
        # Norms start as ones, and the tower's biases as zeros.
        constant = "norm" in name or (name.startswith("vision.") and name.endswith("bias"))
        assert torch.equal(one, three) == constant, name


@pytest.mark.parametrize("part", ["vision", "language"])
def test_weights_of_a_part_depend_on_no_other_part(part):
    """So a second stage with the seed of the first has the random tower that the projector has learned to read."""
    others = {
        "vision": {"model.language.num_layers": 2, "model.language.freeze": True, "model.projector.freeze": True},
        "language": {"model.vision.num_layers": 2, "model.vision.freeze": False, "model.language.freeze": True},
    }
    changes = {**others[part], "model.projector.mm_projector_type": "linear"}
    alone, beside = getattr(build(), part), getattr(build(changes), part)
    for (name, one), other in zip(alone.named_parameters(), beside.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_building_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build()
    assert torch.equal(torch.rand(4), expected)


def test_initial_standard_deviations():
    language = build({"model.language.init_method_std": 0.05, "model.language.hidden_size": 128}).language
    layer = language.decoder.layers[0]
    for weight, std in (
        (language.embedding.word_embeddings.weight[:VOCABULARY], 0.05),
        (layer.self_attention.linear_qkv.weight, 0.05),
        (layer.mlp.linear_fc1.weight, 0.05),
        (layer.mlp.linear_fc2.weight, 0.05 / 8**0.5),
        (layer.self_attention.linear_proj.weight, 0.05 / 8**0.5),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.05)


def test_bf16_follows_fp32():
    case = batch([1, 2], 20)
    expected, expected_gradients = loss_and_gradients(build({"model.vision.freeze": False}), case)
    model = build({"model.vision.freeze": False, "precision.precision": "bf16"})
    model = Float16Module(model.config, model)
    loss, gradients = loss_and_gradients(model, case)
    assert loss.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert (loss - expected).abs().max() < 0.15
    for name, gradient in gradients.items():
        reference = expected_gradients[name.removeprefix("module.")]
        assert (gradient.float() - reference).norm() < 0.1 * reference.norm() + 0.01, name


def test_what_needs_a_gpu_is_refused_without_one():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RecipeError, match=r"precision\.fp8=hybrid needs a GPU"):
        transformer_config(_replace(llava_recipe(), {"precision": _fp8()}))
    model = _replace(llava_recipe().model, {"recompute_granularity": "selective", "recompute_modules": ["layernorm"]})
    with pytest.raises(RecipeError, match="layernorm needs a GPU"):
        transformer_config(_replace(llava_recipe(), {"model": model}))


def test_fp8_settings_reach_core(monkeypatch):
    # Stands for a machine with a GPU. The fused kernels of such a machine are something that Core looks for at once.
    monkeypatch.setattr("neva_model.model.transformer._kernels", lambda _: {})
    monkeypatch.setattr("neva_model.model.transformer.has_transformer_engine", lambda: True)
    settings = {
        "fp8": "e4m3",
        "fp8_recipe": "tensorwise",
        "fp8_margin": 2,
        "fp8_amax_history_len": 16,
        "fp8_amax_compute_algo": "most_recent",
        "first_last_layers_bf16": True,
        "num_layers_at_start_in_bf16": 2,
        "num_layers_at_end_in_bf16": 3,
    }
    changes = {f"precision.{name}": value for name, value in settings.items()}
    config = transformer_config(llava_recipe({"precision.precision": "bf16", **changes}))
    assert {name: getattr(config, name) for name in settings} == settings


def _fp8():
    from neva_recipes.config import PrecisionConfig

    return PrecisionConfig(fp8="hybrid")


def test_checkpoints_name_weights_as_transformer_engine_does():
    """A checkpoint written without Transformer Engine must load with it."""
    model = build()
    shards = model.sharded_state_dict(metadata=None)
    keys = {shard.key for shard in shards.values()}
    assert "language.decoder.layers.self_attention.linear_qkv.layer_norm_weight" in keys
    assert "language.decoder.layers.mlp.linear_fc1.layer_norm_weight" in keys
    assert not any("input_layernorm" in key or "pre_mlp_layernorm" in key for key in keys)
    for part in ("language", "vision", "projector"):
        own = model.part_sharded_state_dict(part)
        assert own.keys() >= getattr(model, part).state_dict().keys() - {"output_layer._extra_state"}
        assert {shard.key for shard in own.values()} <= keys


@torch.no_grad()
def test_hidden_states_are_counted_from_either_end():
    case = batch([1, 1], 12)
    for front, back in ((0, -4), (1, -3), (3, -1)):
        one, other = (
            build({"model.vision.vision_select_layer": layer})(case["tokens"], case["position_ids"], case["images"])
            for layer in (front, back)
        )
        assert torch.equal(one, other)


@pytest.mark.parametrize("tower", [{}, DINOV2], ids=["clip", "dinov2"])
def test_a_trained_tower_keeps_what_the_plan_says(tower):
    """Bytes that one more layer keeps for the backward pass, against the tensors that autograd saves."""
    planned, saved = [], []
    for layers in (2, 1):
        selected = {"model.vision.num_layers": layers, "model.vision.vision_select_layer": -1}
        recipe = llava_recipe({**tower, **selected, "model.vision.freeze": False, "data.micro_batch_size": 2})
        layout = layout_of(recipe)
        planned.append(vision_activations(recipe, layout, layout.stages[0]))
        model, kept = build_model(recipe, pre_process=True, post_process=True), {}
        own = {weight.untyped_storage().data_ptr() for weight in model.vision.parameters()}

        def keep(tensor, kept=kept, own=own):
            storage = tensor.untyped_storage()
            kept |= {storage.data_ptr(): storage.nbytes()} if storage.data_ptr() not in own else {}
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            encode_images(model.vision, recipe.model.vision, torch.randn(2, 3, 28, 28))
        saved.append(sum(kept.values()))
    # A norm's mean and deviation are left out.
    assert planned[0] - planned[1] == pytest.approx(saved[0] - saved[1], rel=0.03)
