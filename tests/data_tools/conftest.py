"""A data file with faults of every kind, of which it is known where they are."""

import importlib
import json

import pytest

from tests.test_architecture import ROOT


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """The file, the folder of its images, and the numbers of the samples with each fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("_planted").write_planted(tmp_path_factory.mktemp("planted"), 4000, 3)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes samples to a file and returns it."""

    def write(*records, name="data.json"):
        path = tmp_path / name
        lines = [json.dumps(record) for record in records]
        path.write_text("\n".join(lines) + "\n" if name.endswith(".jsonl") else f"[{','.join(lines)}]")
        return path

    return write
