"""Recipes in NeMo-Run's own command, and our command with and without NeMo-Run."""

import importlib.util
import json
import sys

import pytest

import executors
from executors.nemo_run.executor import INSTALL
from tests.end_to_end.world import contents, nemo_run

pytestmark = pytest.mark.slow


def test_recipes_of_nemorun_are_ours(nemo, world):
    words = world.tiny(optim__lr="3e-4")
    nemo.nemorun("llava", "finetune", *words, "--to-yaml", "new/exported.yaml", cwd=world.folder)
    ours = nemo_run("llava.finetune", *words, "--dry-run", "--format", "yaml", cwd=world.folder)
    assert (world.folder / "new" / "exported.yaml").read_text(encoding="utf-8") == ours.stdout
    # What was exported is a recipe again.
    shown = nemo.nemorun(
        "llava", "finetune", "--yaml", "new/exported.yaml", "optim.lr=4e-4", "--dryrun", cwd=world.folder
    ).stdout
    assert "lr: 0.0004" in shown


MISTAKES = [
    # The first: a --yes holds for all that a process does.
    ([], "error: nothing was answered, so nothing was started; --yes starts without a question"),
    (["--yes", "--dry-run"], "error: --dry-run: no such flag of nemorun (did you mean --dryrun?)"),
    (
        ["--yes", "executor=here"],
        "error: executor=here: not of the recipe; NeMo-Run's own is set by run.executor=here",
    ),
    (["--yes", "optm.lr=1"], "error: optm.lr: no such field (did you mean optim.lr?)"),
    (["--yes", "optim.lr=fast"], "error: optim.lr='fast': expected a number > 0"),
    (["--yes", "data.data_path=no.json"], "error: data.data_path=no.json: no such file; "),
    (["--yes", "run.executor=nowhere"], "error: run.executor: Executor nowhere not found"),
    (["--yes", "run.executr=here"], "error: run.executr=here: no such field of nemorun (did you mean executor?)"),
    (["--yes", "runs_dir=here"], "error: runs_dir=here: not of the recipe; what is set of NeMo-Run is called run.NAME"),
    (["--yes", "--load", "."], "error: --load: not for these recipes; "),
    (["--to-yaml", "/dev/null/a.yaml"], "error: --to-yaml /dev/null/a.yaml: cannot be written: Not a directory"),
]


# Runs nemorun for each case in one process, for NeMo-Run takes seconds to load. It finds its commands by the arguments
# of the process.
MANY = """
import contextlib, io, json, sys
cases = json.loads(sys.argv[1])
sys.argv = ["nemorun", *cases[0]]
from nemo_run.__main__ import app
results = []
for words in cases:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = app(words)
        except SystemExit as ended:
            code = ended.code
    results.append([code, err.getvalue()])
print(json.dumps(results))
"""


def test_mistakes_in_nemorun(nemo, world):
    before = contents(world.folder).keys()
    cases = [["llava", "finetune", *world.tiny(), *words] for words, _ in MISTAKES]
    done = nemo.run(nemo.python, "-P", "-c", MANY, json.dumps(cases), cwd=world.folder)
    for (code, err), (_, message) in zip(json.loads(done.stdout), MISTAKES, strict=True):
        assert (code, err.count("\n")) == (2, 1), err
        assert err.startswith(message)
    assert contents(world.folder).keys() == before


def test_exit_code_of_a_mistake_in_nemorun(nemo, world):
    done = nemo.nemorun("llava", "finetune", *world.tiny(), "--yes", "optm.lr=1", cwd=world.folder, code=2)
    assert done.stderr == "error: optm.lr: no such field (did you mean optim.lr?)\n"


WORKSPACE = """
import nemo_run as run
from plugin_of_mine import Plugin

@run.cli.factory
@run.autoconvert
def here() -> run.Executor:
    return run.LocalExecutor()

@run.cli.factory
def mine() -> run.Config[run.Plugin]:
    return run.Config(Plugin)
"""

PLUGIN = """
import nemo_run as run

class Plugin(run.Plugin):
    def setup(self, task, executor):
        task.recipe.data.data_path = "no.json"
"""


@pytest.mark.multiprocess
def test_plugin_and_exit_code_of_a_failed_task_in_nemorun(nemo, world, tmp_path):
    """NeMo-Run's own command ends with 0 when the task has failed."""
    (world.folder / "workspace.py").write_text(WORKSPACE)
    (tmp_path / "plugin_of_mine.py").write_text(PLUGIN)
    try:
        words = [*world.tiny(), "--yes", "--tail-logs", "run.executor=here", "run.plugins=mine"]
        done = nemo.nemorun("llava", "finetune", *words, cwd=world.folder, code=1, PYTHONPATH=str(tmp_path))
    finally:
        (world.folder / "workspace.py").unlink()
    assert "error: data.data_path=no.json: no such file" in done.stdout + done.stderr


def test_nemo_run_is_loaded_by_nothing_else(nemo, world):
    arguments = {"words": ["llava.finetune", *world.tiny(), "--dry-run"], "watched": ["nemo_run", "torch"]}
    assert nemo.drive("loaded", cwd=world.folder, **arguments) == []


def test_secret_of_an_option_is_not_shown_by_a_dry_run(nemo, world):
    words = ["llava.finetune", *world.tiny(), "--dry-run", "--executor", "nemo_run", "executor.backend=dgxcloud"]
    words.append("executor.options.client_secret=abcdEFGH")
    forms = ("text", "json", "html")
    told = nemo.drive("commands", cwd=world.folder, cases=[[*words, "--format", form] for form in forms])
    for code, out, err in told:
        assert code == 0
        assert "executor.options.client_secret: would be written to files: put it into a variable" in err
        assert "abcdEFGH" not in out + err


@pytest.mark.skipif(importlib.util.find_spec("nemo_run") is not None, reason="this environment has NeMo-Run")
def test_without_nemo_run(world):
    words = ["llava.finetune", *world.tiny(), "--executor", "nemo_run"]
    done = nemo_run(*words, cwd=world.folder, code=2)
    assert done.stderr == f"error: NeMo-Run is not installed: {INSTALL}\n"
    assert executors.list_runs(world.folder / "runs") == []
    assert sys.executable not in INSTALL
