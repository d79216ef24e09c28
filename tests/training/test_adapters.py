"""Twenty steps with adapters against PEFT on transformers' LLaVA, in every layout; merged, and in PEFT's format."""

from collections.abc import Callable
from pathlib import Path

import fiddle as fdl
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig, LlavaForConditionalGeneration, get_cosine_schedule_with_warmup

from neva_model.checkpoints.converting.convert import convert
from neva_recipes.cli.main import main
from neva_recipes.config import Recipe, build, load_recipe
from neva_recipes.run_directory.names import list_checkpoints
from neva_recipes.storage.tensors import checkpoint_tensors
from tests.model.model_cases import hf_llava
from tests.training._results import losses
from tests.training.test_trajectory import STEPS, steps_of

KINDS = ("lora", "rslora", "dora")
LANGUAGE, VISION = {"rank": 4, "alpha": 6, "dropout": 0}, {"rank": 3, "alpha": 6, "dropout": 0}
TOWER_TARGETS = ("q_proj", "v_proj", "fc1")
RATES = {"projector": 3e-4, "language__layers__1": 5e-4, "language__layers__1__mlp__linear_fc2*": 2e-3}
"""Learning rates of some weights; the others have 1e-3. The last that fits counts."""

LAYOUTS = {
    "lora_tp2": {"trainer__devices": 2, "parallel__tensor_model_parallel_size": 2},
    "dora_tp2_sp": {
        "trainer__devices": 2,
        "parallel__tensor_model_parallel_size": 2,
        "parallel__sequence_parallel": True,
        "model__recompute_granularity": "full",
        "model__recompute_method": "uniform",
        "model__recompute_num_layers": 1,
    },
    "lora_pp2": {"trainer__devices": 2, "parallel__pipeline_model_parallel_size": 2},
    "dora_cp2": {"trainer__devices": 2, "parallel__context_parallel_size": 2},
    "rates_pp2": {"trainer__devices": 2, "parallel__pipeline_model_parallel_size": 2},
    "lora_dp2": {"trainer__devices": 2, "parallel__use_distributed_optimizer": True},
}


def with_adapters(model: LlavaForConditionalGeneration, kind: str) -> peft.PeftModel:
    """Return the model with random adapters of PEFT, beside all layers of its language model and some of its tower."""
    language = [
        name
        for name, module in model.named_modules()
        if "language_model.layers." in name and isinstance(module, torch.nn.Linear)
    ]
    tower = [
        name
        for name, module in model.named_modules()
        if "vision_tower" in name and isinstance(module, torch.nn.Linear) and name.endswith(TOWER_TARGETS)
    ]
    torch.manual_seed(7)
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=LANGUAGE["rank"],
            lora_alpha=LANGUAGE["alpha"],
            lora_dropout=0.0,
            use_rslora=kind == "rslora",
            use_dora=kind == "dora",
            init_lora_weights=False,
            target_modules=language + tower,
            rank_pattern=dict.fromkeys(tower, VISION["rank"]),
            alpha_pattern=dict.fromkeys(tower, VISION["alpha"]),
        ),
    )


@pytest.fixture(scope="module")
def folder(
    make_recipe: Callable[..., fdl.Config[Recipe]],
    train: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a run of each kind and layout, of the model that all begin with, and of PEFT's adapters."""
    folder, recipes = tmp_path_factory.mktemp("adapters"), {}
    source = {f"model__{part}__from_pretrained": folder / "hf" for part in ("language", "vision", "projector")}
    for kind in KINDS:
        fields = {f"model__language__lora__{name}": value for name, value in {"kind": kind, **LANGUAGE}.items()}
        fields |= {f"model__vision__lora__{name}": value for name, value in {"kind": kind, **VISION}.items()}
        fields["model__vision__lora__target_modules"] = ",".join(TOWER_TARGETS)
        fields |= {f"model__{part}__lora__from_pretrained": folder / f"peft-{kind}" for part in ("language", "vision")}
        layouts = {kind: {}} | {name: layout for name, layout in LAYOUTS.items() if name.startswith(f"{kind}_")}
        for name, layout in layouts.items():
            recipes[name] = make_recipe(trainer__max_steps=STEPS, **source, **fields, **layout)
    for name, kinds, steps in (("mixed", ("lora", "rslora"), STEPS), ("unlike", ("lora", "dora"), 1)):
        fields = {f"model__language__lora__{field}": value for field, value in {"kind": kinds[0], **LANGUAGE}.items()}
        fields |= {f"model__vision__lora__{field}": value for field, value in {"kind": kinds[1], **VISION}.items()}
        recipes[name] = make_recipe(trainer__max_steps=steps, **source, **fields)
    rates = {f"optim__lr_of__{name}": value for name, value in RATES.items()}
    for name, layout in {"rates": {}, "rates_pp2": LAYOUTS["rates_pp2"]}.items():
        recipes[name] = make_recipe(trainer__max_steps=STEPS, **source, **rates, **layout)
    split = {**LAYOUTS["lora_tp2"], "parallel__sequence_parallel": True}
    for name, layout in {"qlora": {}, "qlora_tp2": split}.items():
        recipes[name] = make_recipe(trainer__max_steps=STEPS, **source, **qlora_fields(folder), **layout)
    torch.manual_seed(0)
    hf_llava(build(recipes["lora"])).save_pretrained(folder / "hf")
    for kind in KINDS:
        model = LlavaForConditionalGeneration.from_pretrained(folder / "hf", attn_implementation="eager")
        with_adapters(model, kind).save_pretrained(folder / f"peft-{kind}")
    train(recipes.pop("lora"), folder / "lora", **recipes)
    return folder


def peft_model(folder: Path, kind: str) -> peft.PeftModel:
    base = LlavaForConditionalGeneration.from_pretrained(folder / "hf", attn_implementation="eager")
    return peft.PeftModel.from_pretrained(base, folder / f"peft-{kind}", is_trainable=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_losses_equal_those_of_peft(kind: str, folder: Path, tmp_path: Path) -> None:
    recipe = build(load_recipe(folder / kind / "recipe.yaml"))
    model = peft_model(folder, kind).train()
    for name, parameter in model.named_parameters():
        if "multi_modal_projector" in name:
            parameter.requires_grad_(True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.optim.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=1, num_training_steps=STEPS)
    expected = steps_of(model, recipe, trained, optimizer, schedule, tmp_path)
    ours = losses(folder / kind)
    assert len(ours) == STEPS and ours[-1] < ours[0] - 0.1
    difference = max(abs(a - b) for a, b in zip(ours, expected, strict=True))
    print(f"{kind}: largest difference of the loss in {STEPS} steps {difference:.1e}")
    assert difference <= 1e-4


def qlora_fields(folder: Path) -> dict[str, object]:
    adapters = {f"model__language__lora__{name}": value for name, value in LANGUAGE.items()}
    start = {"model__language__lora__from_pretrained": folder / "peft-lora", "model__language__quantize": "nf4"}
    return {**adapters, **start}


@pytest.mark.slow
def test_losses_of_qlora_equal_those_of_peft_and_bitsandbytes(folder: Path, tmp_path: Path) -> None:
    recipe = build(load_recipe(folder / "qlora" / "recipe.yaml"))
    bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["lm_head", "model.vision_tower", "model.multi_modal_projector"],
    )
    base = LlavaForConditionalGeneration.from_pretrained(
        folder / "hf", quantization_config=bits, dtype=torch.float32, attn_implementation="eager"
    )
    model = peft.get_peft_model(
        base,
        peft.LoraConfig(
            r=LANGUAGE["rank"],
            lora_alpha=LANGUAGE["alpha"],
            target_modules=[
                name
                for name, module in base.named_modules()
                if "language_model.layers." in name and isinstance(module, torch.nn.Linear)
            ],
        ),
    )
    values = load_file(folder / "peft-lora" / "adapter_model.safetensors")
    held = peft.get_peft_model_state_dict(model)
    peft.set_peft_model_state_dict(model, {name: values[name] for name in held})
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_("lora_" in name or "multi_modal_projector" in name)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(not parameter.is_floating_point() for parameter in model.parameters()) == 7 * 2
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    optimizer = torch.optim.AdamW(trained, lr=recipe.optim.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=1, num_training_steps=STEPS)
    expected = steps_of(model.train(), recipe, trained, optimizer, schedule, tmp_path)
    difference = max(abs(a - b) for a, b in zip(losses(folder / "qlora"), expected, strict=True))
    print(f"qlora: largest difference of the loss in {STEPS} steps {difference:.1e}")
    assert difference <= 1e-3


@pytest.mark.slow
def test_own_learning_rates_equal_those_of_torch(folder: Path, tmp_path: Path) -> None:
    recipe = build(load_recipe(folder / "rates" / "recipe.yaml"))
    assert list(recipe.optim.lr_of.values()) == list(RATES.values())
    model = LlavaForConditionalGeneration.from_pretrained(folder / "hf", attn_implementation="eager").train()
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision_tower" not in name)
        rate = recipe.optim.lr
        if "multi_modal_projector" in name:
            rate = 3e-4
        elif "language_model.layers.1." in name:
            rate = 2e-3 if "down_proj" in name else 5e-4
        groups.setdefault(rate, []).append(parameter)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": [one for one in some if one.requires_grad], "lr": rate} for rate, some in groups.items()],
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=1, num_training_steps=STEPS)
    expected = steps_of(model, recipe, trained, optimizer, schedule, tmp_path)
    assert max(abs(a - b) for a, b in zip(losses(folder / "rates"), expected, strict=True)) <= 1e-4


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_equal_one_process(layout: str, folder: Path) -> None:
    pairs = list(zip(losses(folder / layout), losses(folder / layout.partition("_")[0]), strict=True))
    assert len(pairs) == STEPS
    assert max(abs(a - b) for a, b in pairs) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qlora", "qlora_tp2"])
def test_weights_in_4_bits_are_merged_as_they_were_trained(kind: str, folder: Path, tmp_path: Path) -> None:
    done = convert(folder / kind, tmp_path / "merged", "transformers", verify=True)
    assert done.difference is not None
    difference, largest = done.difference
    print(f"{kind}: merged and unmerged logits differ by {difference:.1e}; the largest is {largest:.1f}")
    assert difference <= 1e-5 * max(largest, 1.0)


@pytest.mark.slow
def test_peft_has_no_dora_beside_lora(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(folder / "unlike"), str(tmp_path / "peft"), "--layout", "peft"]) == 2
    assert "model.language.lora.kind=lora and model.vision.lora.kind=dora: in PEFT's " in capsys.readouterr().err
    assert not (tmp_path / "peft").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora_tp2", "dora", "mixed"])
def test_merged_is_unmerged_and_peft_has_the_same_logits(
    kind: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = convert(folder / kind, tmp_path / "merged", "transformers", verify=True)
    assert done.difference is not None
    difference, largest = done.difference
    print(f"{kind}: merged and unmerged logits differ by {difference:.1e}; the largest is {largest:.1f}")
    assert difference <= 1e-5 * max(largest, 1.0)
    assert main(["convert", str(folder / kind), str(tmp_path / "peft"), "--layout", "peft"]) == 0
    assert "never beside a merged model" in " ".join(capsys.readouterr().err.split())
    merged = LlavaForConditionalGeneration.from_pretrained(tmp_path / "merged", attn_implementation="eager").eval()
    base = LlavaForConditionalGeneration.from_pretrained(folder / "hf", attn_implementation="eager")
    # PEFT keeps adapters alone; the projector was trained too.
    base.model.multi_modal_projector.load_state_dict(merged.model.multi_modal_projector.state_dict())
    base.config.image_token_index = base.model.config.image_token_index = merged.config.image_token_index
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    recipe = build(load_recipe(folder / kind / "recipe.yaml"))
    side, image = recipe.model.vision.image_size, merged.config.image_token_index
    number = merged.config.image_seq_length
    generator = torch.Generator().manual_seed(3)
    words = torch.randint(5, recipe.model.language.vocab_size, (2, 20), generator=generator)
    tokens = torch.cat([torch.full((2, number), image), words], dim=1)
    pixels = torch.randn(2, 3, side, side, generator=generator)
    with torch.no_grad():
        ours, theirs = (one(input_ids=tokens, pixel_values=pixels).logits for one in (merged, adapted))
    assert (ours - theirs)[..., : recipe.model.language.vocab_size].abs().max() <= 1e-4


@pytest.mark.slow
def test_a_checkpoint_holds_adapters_and_not_what_they_stand_beside(folder: Path) -> None:
    names = {
        name
        for name in checkpoint_tensors(list_checkpoints(folder / "lora" / "checkpoints")[-1])
        if not name.startswith("optimizer.")
    }
    assert {name.partition(".")[0] for name in names} == {"language_adapters", "vision_adapters", "projector"}
