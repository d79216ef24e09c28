"""The contract of executors on the local one, and on ones that break it."""

from dataclasses import dataclass

import pytest

from executors import LocalExecutor, conformance
from executors.conformance import CHECKS, Subject
from neva_recipes.plan import Layout

TWO_NODES = Layout(
    num_nodes=2,
    processes_per_node=1,
    tensor_model_parallel_size=1,
    pipeline_model_parallel_size=1,
    context_parallel_size=1,
    data_parallel_size=2,
    num_microbatches=1,
    stages=(),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_local(check, tmp_path):
    check(Subject(make=LocalExecutor, folder=tmp_path, refused=TWO_NODES))


@dataclass(frozen=True, kw_only=True)
class Unchecked(LocalExecutor):
    def __post_init__(self):
        pass


@dataclass(frozen=True, kw_only=True)
class Telling(LocalExecutor):
    def record(self):
        return {**super().record(), "env": self.env}


@dataclass(frozen=True, kw_only=True)
class Willing(LocalExecutor):
    def check(self, layout):
        pass


@dataclass(frozen=True, kw_only=True)
class Unquoting(LocalExecutor):
    def script(self, job):
        return f"cd {job.cwd} && exec {' '.join(job.command)}\n"


@dataclass(frozen=True, kw_only=True)
class Noting(LocalExecutor):
    def start(self, job, *, lock, lifeline):
        super().start(job, lock=lock, lifeline=lifeline)
        (job.run_dir / "environment").write_text(repr(job.env))


@pytest.mark.parametrize(
    ("make", "check", "message"),
    [
        (Unchecked, "kind_is_registered", "'local' names"),
        (Unchecked, "wrong_fields_are_refused", "was not refused: executor.env"),
        (Telling, "fields_round_trip", "a secret is in the record"),
        (Willing, "impossible_layouts_are_refused", "was not refused"),
        (Unquoting, "script_is_shell", "sh: exit code 2"),
        (Noting, "secrets_are_nowhere", "in /(?s:.)*/environment"),
    ],
)
def test_what_breaks_the_contract_is_found(make, check, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        getattr(conformance, check)(Subject(make=make, folder=tmp_path, refused=TWO_NODES))
