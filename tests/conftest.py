"""What holds for every test."""

import os
import signal
import tempfile

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Every machine draws the same examples, and none is too slow for them; `--hypothesis-profile=default` draws others.
settings.register_profile("tests", derandomize=True, deadline=None, database=None)
settings.load_profile("tests")

# What people set for themselves, and commands go by; each of a thousand processes would compile what is not kept.
for variable in ("COLUMNS", "FORCE_COLOR", "HF_TOKEN", "NO_COLOR", "PYTHONDONTWRITEBYTECODE", "WANDB_API_KEY"):
    os.environ.pop(variable, None)

# Models that were fetched on this machine are not looked for, and what tests fetch is not kept there.
for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
    os.environ.pop(variable, None)
_huggingface = tempfile.TemporaryDirectory(prefix="huggingface-")
os.environ["HF_HOME"] = _huggingface.name

os.umask(0o022)

# Shells start jobs in the background, and nohup starts everything, with these ignored, and so would every command that
# a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)


def pytest_unconfigure():
    _huggingface.cleanup()


_SLOWEST = ("training", "slurm", "end_to_end", "plan", "model", "cli", "docker", "executors", "inference", "nemo_run")
"""Folders that take minutes, which are begun first, so that none of them is left to one process at the end."""


def pytest_collection_modifyitems(items):
    folders = {name: number for number, name in enumerate(_SLOWEST)}
    items.sort(key=lambda item: folders.get(item.nodeid.split("/")[1], len(folders)))


class _ByFolder(LoadScopeScheduling):
    """One process of pytest-xdist runs a folder: its tests share clusters, engines and trained models."""

    def _split_scope(self, nodeid):
        return nodeid.split("/")[1]


def pytest_make_parametrize_id(val, argname):
    """Name bytes by their parameter: compressed ones may differ from process to process (gzip writes the time)."""
    return argname if isinstance(val, bytes) else None


def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # it would begin with the folders of many tests, however short these are
    return _ByFolder(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    """Let reports pass from process to process, which half of a surrogate pair in what a test prints would prevent."""
    return _encodable((yield))


def _encodable(value):
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_encodable(name): _encodable(item) for name, item in value.items()}
    return type(value)(map(_encodable, value)) if type(value) in (list, tuple) else value
