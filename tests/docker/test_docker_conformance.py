"""The contract of executors, on a Docker engine."""

import dataclasses
import json
from dataclasses import dataclass

import pytest

from executors.conformance import CHECKS, Subject
from executors.conformance.checks import secrets_are_nowhere
from executors.docker.executor import DockerExecutor
from tests.executors.test_conformance import TWO_NODES


@dataclass(frozen=True, kw_only=True)
class Telling(DockerExecutor):
    def job_environment(self, layout):
        return {**super().job_environment(layout), "PLAIN": self.env["EXECUTOR_CONFORMANCE_TOKEN"]}


@pytest.fixture
def subject(place):
    def told(run):
        name = place.container(run)
        return {"inspect": json.dumps(place.engine.inspect(name)), "docker logs": place.engine.command("logs", name)}

    return Subject(
        make=place.executor,
        folder=place.folder,
        refused=TWO_NODES,
        in_folder=False,
        refused_in_paths=("caf\udce9 not UTF-8",),
        written=lambda: [place.engine.folder / "data" / "containers"],
        told=told,
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_docker(check, subject):
    check(subject)


def test_a_secret_that_the_engine_keeps_is_found(subject, place):
    def make(env):
        executor = place.executor(env=env)
        return Telling(**{field.name: getattr(executor, field.name) for field in dataclasses.fields(executor)})

    with pytest.raises(AssertionError, match=r"^a secret is in ") as caught:
        secrets_are_nowhere(dataclasses.replace(subject, make=make))
    for found in ("inspect", "/config.v2.json", "/launch.sh", "/job.json"):
        assert found in str(caught.value)
