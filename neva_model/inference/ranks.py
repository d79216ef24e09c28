"""Runs a function in one process, or in one for each rank of a model that is divided over some of this machine."""

import os
import sys
from collections.abc import Callable
from multiprocessing.synchronize import Lock

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from neva_model.startup import prepare_command
from neva_recipes.config import ParallelConfig, UserError
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE
from neva_recipes.terminal import OutputLost, guarded, tell

__all__ = ["run_on_ranks"]

_BROKEN_PIPE = 141
"""What a rank ends with whose reader is gone, as a shell says it of SIGPIPE."""


def run_on_ranks(function: Callable[..., None], parallel: ParallelConfig, *arguments: object) -> int:
    """Call a function on every rank of a layout.

    Args:
        function: The function, of a module; it takes the layout and the arguments.
        parallel: How the model is divided.
        *arguments: What can be passed to another process.

    Returns:
        The exit code.

    Raises:
        BrokenPipeError: Who reads standard output has gone.
        UserError: There are too few GPUs; or, with one process, the function raised it.
    """
    processes = parallel.tensor_model_parallel_size * parallel.pipeline_model_parallel_size
    if processes == 1:
        function(parallel, *arguments)
        return 0
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserError(f"--tp and --pp divide the model over {processes} GPUs, but this machine has {gpus}")
    # The ranks meet at the store of this process, whose port is known before they start.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    lock = torch.multiprocessing.get_context("spawn").Lock()
    ranks = torch.multiprocessing.start_processes(
        _run_rank, (processes, store.port, lock, function, parallel, arguments), processes, join=False
    )
    assert ranks is not None
    try:
        while not ranks.join(grace_period=5):
            pass
    except (ProcessExitedException, ProcessRaisedException) as error:
        return _code_of([process.exitcode for process in ranks.processes], error)
    except KeyboardInterrupt:
        for process in ranks.processes:
            process.terminate()
            process.join()
        raise
    return 0


def _code_of(codes: list[int | None], error: Exception) -> int:
    """Return or raise what ranks have failed of, of which the error tells whose failure was heard of first."""
    # A rank that loses another fails too, so the one that was first heard of need not be the one that began.
    if EXIT_MISTAKE in codes:
        return EXIT_MISTAKE
    if _BROKEN_PIPE in codes:
        raise BrokenPipeError from None
    if isinstance(error, ProcessExitedException) and error.exit_code < 0:
        killed = f"rank {error.error_index} was ended by signal {-error.exit_code}"
        raise UserError(f"{killed}; the system sends 9 where memory is short") from None
    raise error


def _run_rank(
    rank: int,
    processes: int,
    port: int,
    lock: Lock,
    function: Callable[..., None],
    parallel: ParallelConfig,
    arguments: tuple[object, ...],
) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    prepare_command()
    from neva_model.model import initialize_model_parallel

    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(rank)
    store = torch.distributed.TCPStore("127.0.0.1", port, is_master=False)
    torch.distributed.init_process_group("nccl" if has_gpu else "gloo", store=store, rank=rank, world_size=processes)
    try:
        initialize_model_parallel(parallel, seed=1234)
        with guarded():
            function(parallel, *arguments)
    except BrokenPipeError:
        os._exit(_BROKEN_PIPE)
    except (UserError, OutputLost) as error:
        if lock.acquire(block=False):  # most mistakes are met by every rank
            tell("error", str(error))
        # The others may wait for this rank in a collective, and so would leaving the process group.
        sys.stderr.flush()
        os._exit(EXIT_MISTAKE)
