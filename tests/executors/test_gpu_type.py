"""Which of our types a GPU is, by the name that its driver gives it."""

import pytest

from executors import _gpu
from executors._gpu import gpu_named, local_gpu_type


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
    monkeypatch.setattr(_gpu, "_DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local_gpu_type() == name
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_gpu_type() is None
