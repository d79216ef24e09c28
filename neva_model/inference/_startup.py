"""What a command that uses a model does before it imports one."""

import os
import warnings

__all__ = ["prepare_process"]


def prepare_process() -> None:
    """Keep libraries from printing what no user can act on, and make Megatron-Core usable without a GPU."""
    # Megatron-Core warns about every optional GPU library at import; on a CPU machine none of them is missing.
    warnings.filterwarnings("ignore", module=r"megatron\.core")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from neva_model.model.cpu_compat import install

    install()
