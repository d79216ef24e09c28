"""The stand-ins for a GPU and for the fused optimizer."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import megatron.core
import pytest
import torch
from megatron.core import tensor_parallel
from packaging.requirements import Requirement
from transformers import CLIPVisionConfig, CLIPVisionModel

from neva_model.model import cpu_compat
from neva_model.model.cpu_adam import CpuFusedAdam
from neva_recipes.config import RunError
from neva_recipes.plan.core_release import CORE_RELEASES

ROOT = Path(__file__).parents[2]


def test_another_release_of_core_is_refused(monkeypatch):
    monkeypatch.setattr(megatron.core, "__version__", "0.17.0+f55d687")
    wanted = "0.19.2" if sys.version_info >= (3, 12) else "0.16.1"
    with pytest.raises(RunError) as raised:
        cpu_compat.install()
    assert str(raised.value) == (
        f"megatron-core 0.17.0 is installed, expected 0.16.1 or 0.19.2: pip install megatron-core=={wanted}"
    )


@pytest.mark.parametrize("release", ["0.16.1", "0.19.2", "0.19.2+f55d687"])
def test_either_release_is_taken_on_any_python(release, monkeypatch):
    monkeypatch.setattr(megatron.core, "__version__", release)
    cpu_compat.install()


@pytest.mark.parametrize(
    ("python", "core", "engine"),
    [("3.11", "==0.16.1", "<2.12,>=2.9"), ("3.12", "==0.19.2", "<2.21,>=2.14"), ("3.13", "==0.19.2", "<2.21,>=2.14")],
)
def test_each_python_gets_one_release_and_what_goes_with_it(python, core, engine):
    def asked(name, lines):
        requirements = [Requirement(line) for line in lines if not line.startswith("#")]
        own = [requirement for requirement in requirements if requirement.name == name]
        return [str(one.specifier) for one in own if one.marker.evaluate({"python_version": python})]

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert asked("megatron-core", project["dependencies"]) == [core]
    assert asked("megatron-core", (ROOT / ".ci/constraints.txt").read_text().splitlines()) == [core]
    assert asked("transformer-engine", project["optional-dependencies"]["gpu"]) == [engine]


def test_core_is_imported_without_git_and_without_triton(tmp_path):
    # Not even a git that is there is asked.
    (tmp_path / "git").write_text("#!/bin/sh\necho asked >&2\necho abc1234\n")
    (tmp_path / "git").chmod(0o755)
    program = """
import importlib.util, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "triton" else find_spec(name, *more)
from neva_model.startup import prepare_process
prepare_process()
import neva_model.training.module
import megatron.core
print(megatron.core.__version__)
"""
    environment = {**os.environ, "PATH": str(tmp_path)}
    environment.pop("NO_VCS_VERSION", None)
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() in CORE_RELEASES and done.stderr == ""


def test_nothing_is_patched_where_there_is_a_gpu():
    program = """
import os
import torch
torch.cuda.is_available = lambda: True
functions = (torch.cuda.current_device, torch.cuda.synchronize, torch.cuda.manual_seed, torch.Tensor.cuda, torch.zeros)
from neva_model.startup import prepare_process
prepare_process()
assert "TORCHDYNAMO_DISABLE" not in os.environ
from megatron.core.optimizer import clip_grads
assert clip_grads.torch is torch
assert functions == (
    torch.cuda.current_device, torch.cuda.synchronize, torch.cuda.manual_seed, torch.Tensor.cuda, torch.zeros
)
"""
    environment = {name: value for name, value in os.environ.items() if name != "TORCHDYNAMO_DISABLE"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, env=environment)


def test_installing_twice_is_installing_once():
    before = (torch.cuda.current_device, torch.Tensor.type, torch.Tensor.cuda)
    cpu_compat.install()
    assert before == (torch.cuda.current_device, torch.Tensor.type, torch.Tensor.cuda)


def test_core_makes_its_small_tensors_on_the_cpu():
    from megatron.core.optimizer import clip_grads
    from megatron.core.pipeline_parallel import schedules

    assert clip_grads.torch.zeros(1, dtype=torch.float, device="cuda").device.type == "cpu"
    assert schedules.torch.zeros([], dtype=torch.int, device="cuda").dtype == torch.int
    assert schedules.torch.Tensor is torch.Tensor


def test_torch_itself_still_builds_on_the_meta_device(tmp_path):
    with torch.device("meta"):
        assert torch.zeros(2).device.type == torch.empty(2).device.type == "meta"
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    tower = CLIPVisionModel(config)
    tower.save_pretrained(tmp_path)
    images = torch.randn(1, 3, 28, 28)
    loaded = CLIPVisionModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(images).last_hidden_state, tower.eval()(images).last_hidden_state)


def test_random_state_tracker_gives_streams_of_their_own():
    tensor_parallel.model_parallel_cuda_manual_seed(5)
    tracker = tensor_parallel.get_cuda_rng_tracker()
    first = torch.rand(3)
    with tracker.fork():
        inside = torch.rand(3)
    second = torch.rand(3)
    tensor_parallel.model_parallel_cuda_manual_seed(5)
    assert torch.equal(torch.rand(6), torch.cat([first, second]))
    with tracker.fork():
        assert torch.equal(torch.rand(3), inside)
    assert not torch.equal(inside, first)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_takes_the_steps_of_torch(weight_decay):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(5, 3, generator=generator), torch.randn(4, generator=generator)]
    ours, theirs = ([torch.nn.Parameter(weight.clone()) for weight in weights] for _ in range(2))
    settings = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": weight_decay}
    adam, reference = CpuFusedAdam(ours, **settings), torch.optim.AdamW(theirs, **settings)
    for step in range(20):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in (adam, reference):
            optimizer.param_groups[0]["lr"] = 1e-2 / (step + 1)
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    assert adam.param_groups[0]["step"] == 20
    assert {name for state in adam.state.values() for name in state} == {"exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize("setting", [{"adam_w_mode": False}, {"bias_correction": False}, {"capturable": True}])
def test_adam_refuses_what_it_does_not_do(setting):
    with pytest.raises(ValueError, match="AdamW"):
        CpuFusedAdam([torch.nn.Parameter(torch.zeros(1))], **setting)
