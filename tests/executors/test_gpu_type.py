"""Which of our types a GPU is, by the name that its driver gives it."""

import pytest

from executors import SlurmExecutor
from executors.process import gpu
from executors.process.gpu import gpu_named, local_gpu_type
from neva_recipes import llava
from neva_recipes.config import RecipeError, UserError
from neva_recipes.inspection.figures import memory_facts
from neva_recipes.plan import plan
from neva_recipes.plan.cost.gpus import GPUS, find_gpu, gpus_named


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80g"),
        ("NVIDIA H100 PCIe", "h100-80g"),
        ("NVIDIA H100 NVL", None),  # 94 GB
        ("NVIDIA H200", "h200-141g"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100-PCIE-80GB", "a100-80g"),
        ("A100-SXM-80GB", "a100-80g"),
        ("NVIDIA A100-SXM-64GB", None),
        ("NVIDIA B200", "b200"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", None),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA RTX 6000 Ada Generation", None),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("Tesla V100-SXM2-32GB", None),
        ("", None),
    ],
)
def test_names(model, name):
    assert gpu_named(model) == name


@pytest.mark.parametrize(
    ("spelling", "names"),
    [
        *((spelling, [name]) for name in GPUS for spelling in (name, name.upper(), name.replace("-", "_"))),
        ("a100", ["a100-80g", "a100-40g"]),
        ("A100-SXM4-80GB", ["a100-80g"]),
        ("nvidia_a100_sxm4_40gb", ["a100-40g"]),
        ("a100 40 GB", ["a100-40g"]),
        ("h100", ["h100-80g"]),
        ("H200", ["h200-141g"]),
        ("rtx4090", ["rtx-4090"]),
        ("RTX A6000", ["a6000"]),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", []),
        ("a100-80", []),
        ("h10", []),
    ],
)
def test_every_spelling_of_the_table(spelling, names):
    assert [gpu.name for gpu in gpus_named(spelling)] == names
    if names:
        assert find_gpu(spelling).name == names[0]
    else:
        with pytest.raises(RecipeError, match=r"--gpu .*: expected one of a100-40g, .*a6000"):
            find_gpu(spelling)


def test_a_field_of_every_executor_goes_before_what_the_place_says():
    assert SlurmExecutor(gpu_model="a100").planned_gpu() == "a100"
    assert SlurmExecutor(gpu_model="a100", gpu="h100").planned_gpu() == "h100"
    assert SlurmExecutor(gpu_model="volta").planned_gpu() is None
    with pytest.raises(UserError, match=r"executor.gpu=A100-40: expected one of .*did you mean a100-40g"):
        SlurmExecutor(gpu="A100-40")


def test_an_open_name_is_the_largest_and_the_smaller_is_a_warning():
    recipe = llava.finetune("7b")  # 47 GiB of weights, gradients and optimizer
    by_name = {gpu: plan(recipe, gpu=gpu) for gpu in ("a100", "a100-80g", "a100-40g")}
    memory = {gpu: [f.severity for f in found.findings if f.code == "memory"] for gpu, found in by_name.items()}
    assert memory == {"a100": ["warning"], "a100-80g": [], "a100-40g": ["error"]}
    (warning,) = (finding for finding in by_name["a100"].findings if finding.code == "memory")
    assert "and the smaller a100-40g has 39.4" in warning.message
    assert (by_name["a100"].gpu.name, by_name["a100"].gpu_assumed) == ("a100-80g", False)
    assert "may be a100-40g" in dict(memory_facts(by_name["a100"]))["GPU"]
    recipe.trainer.devices = 1  # 18 bytes a weight fit on none
    assert [f.severity for f in plan(recipe, gpu="a100").findings if f.code == "memory"] == ["error"]


def information(model):
    return f"Model: \t\t {model}\nIRQ:   \t\t 18\nGPU UUID: \t GPU-0\nBus Location: \t 0000:01:00.0\n"


@pytest.mark.parametrize(
    ("models", "name"),
    [
        (["NVIDIA H200", "NVIDIA H200"], "h200-141g"),
        (["NVIDIA H200", "NVIDIA L40S"], None),
        ([], None),
    ],
)
def test_this_machine(models, name, tmp_path, monkeypatch):
    for number, model in enumerate(models):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(information(model))
    monkeypatch.setattr(gpu, "_DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local_gpu_type() == name
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_gpu_type() is None
