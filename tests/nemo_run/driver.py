"""What the tests have done by a Python that has NeMo-Run: `driver.py FUNCTION JSON`; the result is the last line."""

import contextlib
import dataclasses
import io
import json
import os
import sys
from pathlib import Path

import executors
from executors.nemo_run.executor import NemoRunExecutor
from neva_recipes.config import UserError
from tests.executors.executor_jobs import make_recipe


def make_job(runs_dir, size=2, num_nodes=1, name=None, fields=None):
    recipe = make_recipe(size, num_nodes=num_nodes)
    return executors.plan_job(recipe, NemoRunExecutor(**(fields or {})), name=name, runs_dir=runs_dir)


def start(script, **arguments):
    job = dataclasses.replace(make_job(**arguments), argv=(sys.executable, "-S", script))
    return str(executors.start_job(job, detach=True).path)


def start_all(script, cases, **arguments):
    """Start a job for each case; NeMo-Run takes seconds to load."""
    return [start(script, **arguments, **case) for case in cases]


def resume(path):
    """Resume a run with the program it had; its recipe alone would give it the worker."""
    run = executors.find_run(path)
    run.resume(detach=True)


def requests(cases):
    """Return for each case what NeMo-Run would be asked for, or the error."""
    answers = []
    for case in cases:
        try:
            job = make_job(**case)
            answers.append({"text": job.executor.request(job), "run_dir": str(job.run_dir)})
        except UserError as error:
            answers.append({"error": str(error)})
    return answers


def packed(**case):
    """Return what NeMo-Run would send to SkyPilot along with a job: the files below its folder for code."""
    import nemo_run

    from executors.nemo_run.launcher import enter_empty_repository
    from executors.nemo_run.task import make_script

    job, home = make_job(**case), Path.cwd() / "home"
    nemo_executor = job.executor.nemo_executor(job.layout.num_nodes, job.layout.processes_per_node, job.run_dir)
    enter_empty_repository(home)
    with nemo_run.Experiment("run", executor=nemo_executor, base_dir=str(home)) as experiment:
        experiment.add(make_script(nemo_executor, "", job.run_dir), name="ranks")
        experiment.dryrun(log=False, delete_exp_dir=False)
        assigned = experiment.jobs[0].executor
        assigned.package(assigned.packager, job_name=assigned.job_name)
    return [str(path) for path in Path(assigned.job_dir, "code").iterdir()]


def conform(check, folder):
    """Run a check of the contract of executors."""
    from executors.conformance import checks as conformance

    subject = conformance.Subject(
        make=NemoRunExecutor,
        folder=Path(folder),
        patience=170.0,
        written=lambda: [Path(os.environ["NEMORUN_HOME"]), Path(os.environ["TMPDIR"])],
    )
    getattr(conformance, check)(subject)


def partial(words, runs_dir):
    """Run a recipe as a task of an Experiment, by NeMo-Run's Python API; return the state that NeMo-Run tells."""
    import nemo_run

    from executors.nemo_run.executor import to_nemo_run
    from neva_recipes.cli.arguments import split_overrides
    from neva_recipes.cli.opening import make_recipe as open_recipe
    from neva_recipes.registry import find_recipe

    task = to_nemo_run(open_recipe(find_recipe("llava.finetune"), split_overrides(words)), runs_dir=runs_dir)
    task.recipe.trainer.max_steps = 2
    with nemo_run.Experiment("digits", executor=nemo_run.LocalExecutor(), base_dir="experiments") as experiment:
        experiment.add(task, name="finetune")
        experiment.run()
    return experiment.status(return_dict=True)["finetune"]["status"].name


def commands(cases):
    """Run our command for each case, and return its exit code and what it has printed to each of its two outputs."""
    from neva_recipes.cli.main import main

    results = []
    for words in cases:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            results.append([main(words), out.getvalue(), err.getvalue()])
    return results


def loaded(words, watched):
    """Look at a recipe by our command, and return which of some modules that has loaded."""
    from neva_recipes.cli.main import main

    assert main(words) == 0
    return [name for name in watched if name in sys.modules]


if __name__ == "__main__":
    result = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    print(f"\n{json.dumps(result)}")
