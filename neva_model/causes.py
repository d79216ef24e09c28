"""Errors of libraries that a user's settings, data or machine cause, and the line that explains each."""

import errno
import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Cause", "explain"]


class Cause(NamedTuple):
    """Why a rank cannot go on, as text for people.

    Attributes:
        message: One line: what is wrong, and what to try.
        is_own: Whether it happened on this rank; otherwise another rank is lost, which has more to say.
    """

    message: str
    is_own: bool = True


_LESS_MEMORY = (
    "a smaller data.micro_batch_size or data.sequence_length, model.recompute_granularity=full "
    "or more tensor or pipeline parallelism takes less; --dry-run shows how much"
)
_LESS_HOST_MEMORY = (
    "a smaller data.micro_batch_size or data.sequence_length, fewer data.num_workers or fewer trainer.devices on a "
    "machine take less"
)

_TABLE: tuple[tuple[str, Cause], ...] = (
    # The caching allocator, cuBLAS and NCCL (torch 2.6 to 2.9).
    (
        r"CUDA out of memory\. (?P<what>Tried to allocate [\d.]+ \w+)",
        Cause(f"the GPU is out of memory ({{what}}): {_LESS_MEMORY}"),
    ),
    (
        r"(?P<what>CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|Failed to CUDA (?:malloc|calloc)[^;\n]*)",
        Cause(f"the GPU is out of memory ({{what}}): {_LESS_MEMORY}"),
    ),
    (
        r"no kernel image is available",
        Cause("this build of PyTorch or Transformer Engine is not made for this GPU: install one that is"),
    ),
    (r"Too many open files", Cause("too many open files: raise the limit (ulimit -n), or set data.num_workers lower")),
    # Tensors that a data-loading process passes to its rank.
    (
        r"(?P<what>\w[\w ()]* (?:file|shared memory object) </torch_[^>]*>[^:]*(?:: [^:(]+\(\d+\))?"
        r"|killed by signal: Bus error)",
        Cause(
            "/dev/shm is full, which batches of data-loading processes go through ({what}): make it larger (docker: "
            "executor.shm_size), or set data.num_workers=0"
        ),
    ),
    (
        r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:exited unexpectedly|is killed by signal: Killed)",
        Cause(
            "a data-loading process was killed, most likely for want of memory, or of room in /dev/shm: "
            f"{_LESS_HOST_MEMORY}"
        ),
    ),
    (
        r"DefaultCPUAllocator: .*(?P<what>tried to allocate \d+ bytes)",
        Cause(f"this machine is out of memory ({{what}}): {_LESS_HOST_MEMORY}"),
    ),
    (r"^MemoryError|Cannot allocate memory|bad_alloc", Cause(f"this machine is out of memory: {_LESS_HOST_MEMORY}")),
    (
        r"cannot be converted to type float without overflow",
        Cause("a step of the optimizer is larger than fp32 holds: lower optim.lr, or optim.weight_decay"),
    ),
    (
        r"port: (?P<what>\d+).*EADDRINUSE",
        Cause("port {what}, at which the ranks meet (MASTER_PORT), is taken on this machine: start the run again"),
    ),
    (
        r"(?:timed out|failed).* (?:trying )?to connect to \(?(?P<what>[\w.:-]+, ?\d+)",
        Cause("rank 0 cannot be reached at ({what}): its machine is down, or a firewall is between", is_own=False),
    ),
    (
        r"(?P<what>NCCL error[^\n]*|DistBackendError: [^\n]*)",
        Cause("another GPU cannot be reached ({what}); with executor.env.NCCL_DEBUG=INFO the log says more", False),
    ),
    (
        r"(?P<what>Connection closed by peer|Connection reset by peer|Timed out waiting \d+ms for \w+ operation)",
        Cause("another rank is gone ({what})", is_own=False),
    ),
)
"""Patterns for `Type: text`, and their causes; the first match counts, and `what` is taken from the text."""

_MACHINE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "there is no permission",
    errno.EIO: "the disk or the network file system fails",
    errno.ESTALE: "the network file system has lost it",
}
"""Errors of the operating system on files that are no mistake of ours."""


def explain(error: BaseException) -> Cause | None:
    """Return the cause of an error if users, data or machines are to blame; `None` for a mistake of ours.

    Args:
        error: The exception; its `__cause__` chain is searched too.
    """
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in _MACHINE:
            where = f"{each.filename}: " if each.filename else ""
            return Cause(f"{where}{_MACHINE[each.errno]}")
        text = " ".join(f"{type(each).__name__}: {each}".split())
        for pattern, cause in _TABLE:
            if found := re.search(pattern, text):
                what = found.groupdict().get("what") or "?"
                return Cause(cause.message.format(what=what[:200]), cause.is_own)
        for number, words in _MACHINE.items():
            # An error in a data-loading process arrives as text.
            if f"[Errno {number}]" in text or (number == errno.ENOSPC and "No space left on device" in text):
                return Cause(words)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__
