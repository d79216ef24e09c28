"""How a pipeline stands on a cluster whose stage was begun anew in vain, told by the records on the disk alone."""

import dataclasses

import pytest

import executors
from executors import Export, Pipeline, SlurmExecutor, Stage
from executors.launch import write_run_directory
from executors.pipelines.directory import stage_statuses
from neva_recipes.config import config
from neva_recipes.run_directory.state import State, write_state
from tests.pipelines.recipes import make_recipe

# first has gone on after second had ended; second was begun anew then, failed before it trained and kept its success,
# as `write_state` says it, and Slurm has cancelled what waited for it.
FIRST = State(state="succeeded", exit_code=0, started="2026-01-01T10:00:00+00:00", ended="2026-01-01T12:00:00+00:00")
SECOND = State(
    state="succeeded",
    attempt=2,
    exit_code=3,
    reason="not resumed: rank 0 exited with code 3",
    started="2026-01-01T10:30:00+00:00",
    ended="2026-01-01T11:00:00+00:00",
    supervisor={"slurm_job_id": "7"},
)
EXPORT = State(
    state="cancelled",
    attempt=2,
    exit_code=130,
    reason="the Slurm job was cancelled",
    ended="2026-01-01T12:30:00+00:00",
    supervisor={"slurm_job_id": "8"},
)


@pytest.fixture
def pipeline(tmp_path):
    """Write a pipeline whose stages are in given states, and return its run."""
    first = Stage("first", make_recipe("one"))
    recipe = make_recipe("two")
    recipe.model.language.from_pretrained = first.output
    second = Stage("second", recipe)
    chain = Pipeline("chain", first >> second >> Stage("export", config(Export, model=second.output)))

    def write(**states):
        planned = executors.plan_pipeline(chain, SlurmExecutor(), runs_dir=tmp_path / "runs")
        path = planned.job.run_dir
        path.mkdir(parents=True)
        write_run_directory(path, planned.job, State(state="running", supervisor={"directory": str(path)}))
        planned.write_stages(path, path)
        for name, state in states.items():
            write_state(path / "stages" / name, state)
        return executors.Run(path)

    return write


def test_it_has_failed(pipeline):
    run = pipeline(first=FIRST, second=SECOND, export=EXPORT)
    assert {stage.name: stage.state for stage in stage_statuses(run.path)} == {
        "first": "succeeded",
        "second": "succeeded",
        "export": "not run",
    }
    status = run.status()
    assert (status.state, status.exit_code) == ("failed", 3)
    assert status.reason == (
        "second is older than first, whose output it takes: not resumed: rank 0 exited with code 3; not run: export"
    )


def test_what_was_cancelled_by_hand_is_cancelled_still(pipeline):
    second = dataclasses.replace(SECOND, state="cancelled", exit_code=130, reason="the Slurm job was cancelled")
    run = pipeline(first=FIRST, second=second, export=EXPORT)
    assert run.status().state == "cancelled"


def test_an_old_success_with_its_input_as_it_was_does_not_keep_others_from_running(pipeline):
    first = dataclasses.replace(FIRST, ended="2026-01-01T10:29:00+00:00")
    run = pipeline(first=first, second=SECOND)
    stages = {stage.name: (stage.state, stage.is_lost) for stage in stage_statuses(run.path, goes_on=True)}
    assert stages["second"] == ("succeeded", False) and stages["export"] == ("waiting", False)
