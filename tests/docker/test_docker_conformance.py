"""The contract of executors, on a Docker engine."""

import json

import pytest

from executors.conformance import CHECKS, Subject
from tests.executors.test_conformance import TWO_NODES


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_docker(check, place):
    def told(run):
        name = place.container(run)
        return {"inspect": json.dumps(place.engine.inspect(name)), "docker logs": place.engine.command("logs", name)}

    check(
        Subject(
            make=place.executor,
            folder=place.folder,
            refused=TWO_NODES,
            in_folder=False,
            refused_in_paths=("caf\udce9 not UTF-8",),
            written=lambda: [place.engine.folder / "data" / "containers"],
            told=told,
        )
    )
