"""What a container sees of this machine; no engine is asked."""

import executors
from executors import DockerExecutor
from executors.docker.container import container_of
from tests.pipelines.recipes import make_recipe


def test_a_relative_source_is_that_of_the_launch(tmp_path, monkeypatch):
    """Wherever the run is resumed."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    executor = DockerExecutor(image="some", mounts=["./data:/data", "/all:/all:ro"])
    job = executors.plan_job(make_recipe(), executor, runs_dir=tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "second")
    sources = {bind.target: bind.source for bind in container_of(job, executor, {"hostname": "here"}).binds}
    assert sources["/data"] == str(tmp_path / "first" / "data")
    assert sources["/all"] == "/all"
