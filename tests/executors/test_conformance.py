"""The contract of executors on the local one, and on ones that break it."""

import ast
import dataclasses
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from executors import LocalExecutor
from executors.conformance import CHECKS, Subject
from executors.conformance import checks as conformance
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
class Showing(LocalExecutor):
    def script(self, job):
        return f"{super().script(job)}# {' '.join(job.env.values())!r}\n"


@dataclass(frozen=True, kw_only=True)
class Forgetting(LocalExecutor):
    def start(self, job, *, lock, lifeline):
        env = {name: value for name, value in job.env.items() if name != "HOSTILE_3"}
        super().start(dataclasses.replace(job, env=env), lock=lock, lifeline=lifeline)


@dataclass(frozen=True, kw_only=True)
class Leaking(LocalExecutor):
    def start(self, job, *, lock, lifeline):
        super().start(job, lock=lock, lifeline=lifeline)
        (job.run_dir / "environment").write_text(repr(job.env))
        secret = job.env["EXECUTOR_CONFORMANCE_TOKEN"]
        with (job.run_dir / "logs" / "joined.log").open("a") as log:
            log.write(f"{secret}\n")
        waiting = 'while [ ! -e "$1/go" ]; do sleep 0.05; done'
        leak = subprocess.Popen(["sh", "-c", waiting, secret, job.run_dir])
        while secret.encode() not in Path(f"/proc/{leak.pid}/cmdline").read_bytes():
            time.sleep(0.01)  # a process has no arguments yet for a moment in which Popen may return


@pytest.mark.parametrize(
    ("make", "check", "message"),
    [
        (Unchecked, "kind_is_registered", "'local' names"),
        (Unchecked, "wrong_fields_are_refused", "was not refused: executor.env"),
        (Telling, "fields_round_trip", "a secret is in the record"),
        (Willing, "impossible_layouts_are_refused", "was not refused"),
        (Unquoting, "script_is_shell", "sh: exit code 2"),
        (Showing, "script_is_shell", "a secret is in the script"),
        (Forgetting, "ranks_get_what_was_given", "^rank 0: the variable HOSTILE_3 is None: expected '"),
    ],
)
def test_what_breaks_the_contract_is_found(make, check, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        getattr(conformance, check)(Subject(make=make, folder=tmp_path, refused=TWO_NODES))


def test_every_finding_is_told_in_words():
    """The tests of an executor elsewhere see the message of an assertion, and nothing of what was compared."""
    files = {path.name: path.read_text(encoding="utf-8") for path in Path(conformance.__file__).parent.glob("*.py")}
    asserts = {
        name: [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assert)]
        for name, text in files.items()
    }
    assert len(asserts["checks.py"]) > 10
    assert [(name, node.lineno) for name, found in asserts.items() for node in found if node.msg is None] == []


def test_a_secret_is_found_wherever_it_stands(tmp_path):
    elsewhere = tmp_path / "elsewhere"

    def told(run):
        elsewhere.write_text(os.environ["EXECUTOR_CONFORMANCE_PASSWORD"])
        return {"what the place tells": (run.path / "environment").read_text()}

    (tmp_path / "jobs").mkdir()
    with pytest.raises(AssertionError, match=r"^a secret is in ") as caught:
        conformance.secrets_are_nowhere(
            Subject(make=Leaking, folder=tmp_path / "jobs", written=lambda: [elsewhere], told=told)
        )
    places = ("the arguments of a process: sh -c ", "/environment", "/joined.log", "what the place tells")
    for place in (*places, str(elsewhere), "the output of logs "):
        assert f"{place}" in str(caught.value)
