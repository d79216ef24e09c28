"""What machines and settings do to a run: one line with what to try, never a traceback, never a wait for ever."""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from neva_model.causes import explain
from neva_recipes.config import Recipe
from tests.training.test_checkpoint_faults import fails

MakeRecipe = Callable[..., fdl.Config[Recipe]]


class Dying(Dataset):
    """Its worker dies by a signal."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), self._number)
        return index


def much_memory() -> None:
    torch.empty(10**14)


def much_memory_of_python() -> None:
    bytearray(10**15)


def full_disk() -> None:
    with Path("/dev/full").open("w") as file:
        file.write("x")


def taken_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        torch.distributed.TCPStore("127.0.0.1", taken.getsockname()[1], 1, is_master=True)


def step_beyond_fp32() -> None:
    one = [torch.ones(1)]
    torch._foreach_addcdiv_(one, one, one, -1e39)


def lost_rank() -> None:
    torch.distributed.TCPStore("127.0.0.1", 9, 2, is_master=False, timeout=timedelta(seconds=1))


def killed_loader() -> None:
    list(DataLoader(Dying(signal.SIGKILL), batch_size=None, num_workers=1))


def bus_error_of_a_loader() -> None:
    list(DataLoader(Dying(signal.SIGBUS), batch_size=None, num_workers=1))


def no_room_for_batches() -> None:
    torch.UntypedStorage._new_using_fd_cpu(2**50)


def many_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.dup(0)
    os.close(next_one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, hard))
    try:
        torch.UntypedStorage._new_using_fd_cpu(8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def forbidden_folder() -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/cache")


def gpu_out_of_memory() -> None:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1 is."
    )


def lost_connection() -> None:
    raise RuntimeError(
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.7]:5"
    )


SAID = {
    much_memory: ("this machine is out of memory (tried to allocate 400000000000000 bytes): ", "data.micro_batch_size"),
    much_memory_of_python: ("this machine is out of memory: ", "data.num_workers"),
    full_disk: ("the disk is full",),
    taken_port: ("port ", "is taken on this machine: start the run again"),
    step_beyond_fp32: ("a step of the optimizer is larger than fp32 holds: lower optim.lr",),
    lost_rank: ("rank 0 cannot be reached at (127.0.0.1, 9)",),
    killed_loader: ("a data-loading process was killed", "want of memory"),
    bus_error_of_a_loader: ("a data-loading process was killed", "/dev/shm"),
    no_room_for_batches: ("/dev/shm is full", "shared memory(shm) for file </torch_", "executor.shm_size"),
    many_open_files: ("too many open files: raise the limit (ulimit -n)",),
    forbidden_folder: ("/data/cache: there is no permission",),
    gpu_out_of_memory: ("the GPU is out of memory (Tried to allocate 2.00 GiB)", "model.recompute_granularity=full"),
    lost_connection: ("another rank is gone (Connection closed by peer)",),
}


@pytest.mark.parametrize("cause", SAID, ids=lambda cause: cause.__name__)
def test_a_cause_has_its_line(cause: Callable[[], None]) -> None:
    with pytest.raises(Exception) as raised:
        cause()
    found = explain(raised.value)
    assert found is not None, raised.value
    assert found.message.startswith(SAID[cause][0]) and "\n" not in found.message
    for words in SAID[cause]:
        assert words in found.message
    assert found.is_own == (cause not in (lost_rank, lost_connection))


def test_a_mistake_of_ours_has_none() -> None:
    assert explain(KeyError("weights")) is None
    assert explain(RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")) is None
    assert explain(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    with pytest.raises(RuntimeError, match="int64_t without overflow") as raised:
        torch.ones(1, dtype=torch.int64).fill_(1e30)
    assert explain(raised.value) is None
    # A kernel asks for too much, the machine has it.
    assert explain(RuntimeError("out of resource: shared memory, Required: 262144, Hardware limit: 232448")) is None


@pytest.mark.slow
def test_a_taken_port_and_no_room_for_batches(make_recipe: MakeRecipe, start_worker: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        worker = start_worker(make_recipe(), tmp_path / "port", port=taken.getsockname()[1])
        assert worker.wait() == 2, worker.log()
    assert f"error: port {worker.port}, at which the ranks meet (MASTER_PORT), is taken" in worker.log()
    assert "Traceback" not in worker.log()

    unshare = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"', "sh")
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    recipe = make_recipe(data__num_workers=1)
    line = fails(lambda *arguments: start_worker(*arguments, prefix=unshare), recipe, tmp_path / "shm")
    assert "/dev/shm is full" in line


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_training_that_diverges_keeps_what_was_saved_before(
    make_recipe: MakeRecipe, start_worker: Any, tmp_path: Path
) -> None:
    fields = {
        "optim__clip_grad": 0,
        "checkpoint__every_n_train_steps": 1,
        "trainer__devices": 2,
    }
    # Weights that are finite and a loss that is not, and weights that are infinite at once.
    cases = {
        "loss": (
            {"optim__lr": "1e20"},
            "the loss is nan in step 3",
            ["1", "2"],
            "resume {} --from step-1 goes on from",
        ),
        "weights": (
            {"optim__lr": "1e36", "optim__weight_decay": "1e5"},
            "a weight is infinite or no number in step 2",
            ["1"],
            "rerun {} starts anew",
        ),
    }
    for name, (optim, said, kept, remedy) in cases.items():
        line = fails(start_worker, make_recipe(**fields, **optim), tmp_path / name)
        assert said in line and "set optim.clip_grad=1 (it is off)" in line
        assert f"nemo-run {remedy.format(tmp_path / name)}" in line
        assert sorted(path.name[-1] for path in (tmp_path / name / "checkpoints").iterdir()) == kept


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_validation_of_nothing_is_no_loss_of_zero(
    make_recipe: MakeRecipe, start_worker: Any, digits: Path, tmp_path: Path
) -> None:
    samples = json.loads((digits / "held_out.json").read_text())[:4]
    for sample in samples:
        sample["conversations"][0]["value"] += " Which?" * 60
    (tmp_path / "long.json").write_text(json.dumps(samples))
    recipe = make_recipe(
        data__validation_data_path=tmp_path / "long.json",
        data__sequence_length=100,
        trainer__val_check_interval=1,
        trainer__devices=2,
    )
    line = fails(start_worker, recipe, tmp_path / "run")
    assert "long.json: no sample of the validation has an answer in its first 100 tokens: set data.sequence" in line
    assert [path.name[-1] for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["1"]
