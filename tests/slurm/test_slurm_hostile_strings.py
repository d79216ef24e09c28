"""Texts of users in the fields of a Slurm job: none of them is executed, or read as another option.

That variables, arguments, names and paths are carried is part of the contract (test_slurm_conformance.py).
"""

import shlex
import subprocess

import pytest

from executors import run_pipeline
from executors.conformance import HOSTILE
from executors.conformance.hostile import folder_names
from executors.slurm.executor import SlurmExecutor
from neva_recipes.config import UserError
from neva_recipes.sweep import sweep
from tests.pipelines.small_stages import runs_dir
from tests.slurm.slurm_jobs import points, start

__all__ = ["runs_dir"]

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


def words_into(path):
    """The body of a function of the shell that writes the words it is called with into a file."""
    return f"() {{ printf '%s\\0' \"$@\" >>{shlex.quote(str(path))}; }}"


def accepted(make):
    """Return the texts with which an executor can be made; each of the others is refused in one line."""
    found = []
    for text in HOSTILE:
        try:
            make(text)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            found.append(text)
    return found


def words_of(path):
    return path.read_text().split("\0")[:-1]


def test_fields_reach_slurm_as_they_are(cluster, tmp_path, monkeypatch):
    comments = accepted(lambda text: SlurmExecutor(comment=text))
    arguments = accepted(lambda text: SlurmExecutor(srun=[text]))
    assert len(comments) >= 25 and len(arguments) >= 35
    comment = " | ".join(comments)
    mounts = [f"/a {text}:/b {text}" for text in arguments]
    # In place of the programs that are not here (pyxis, environment modules): what they are called with.
    monkeypatch.setenv("BASH_FUNC_module%%", words_into(tmp_path / "module"))
    monkeypatch.chdir(tmp_path)
    run = start(
        "/rank.py",
        tmp_path / "runs",
        gpu_request="none",
        comment=comment,
        sbatch={"network": comment},
        srun=arguments,
        modules=[text for text in arguments if text],
        setup=[f"srun{words_into(tmp_path / 'srun')}"],
        container_image=" ".join(arguments),
        container_mounts=mounts,
        container_workdir=" ".join(arguments),
        python=" ".join(arguments),
    )
    assert run.wait() == 0, list(run.logs())
    job = run.supervisor()["slurm_job_id"]
    for field in ("Comment", "Network"):
        asked = ["squeue", "--noheader", "--states=all", f"--jobs={job}", f"--Format={field}:5000"]
        assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.rstrip() == comment.rstrip()
    own = [f"{path}:{path}" for path in (run.path, tmp_path)]
    options = [
        "--kill-on-bad-exit=1",
        f"--container-image={' '.join(arguments)}",
        f"--container-mounts={','.join([*own, *mounts])}",
        f"--container-workdir={' '.join(arguments)}",
    ]
    words = words_of(tmp_path / "srun")
    assert words[: len(options)] == options
    assert words[len(options) :][: len(arguments) + 1] == [*arguments, " ".join(arguments)]
    assert words[-1] == str(run.path / "slurm")
    loaded = [word for text in arguments if text for word in ("load", text)]
    assert words_of(tmp_path / "module") == loaded
    assert not list(tmp_path.rglob("canary"))


def test_an_array_in_a_hostile_folder(cluster, runs_dir):
    """Its run directories are lines of a file."""
    executor = SlurmExecutor(gpu_request="none", code_snapshot=False)
    folder = runs_dir.joinpath(*folder_names(["%j %A %t"]))
    run = run_pipeline(sweep("s", points(2)), executor, folder, detach=True)
    assert run.wait() == 0
    assert sorted((folder / "starts").read_text().split()) == ["1", "2"]
    assert not list(runs_dir.rglob("canary"))


@pytest.mark.parametrize("field", ["partition", "account", "qos", "nodelist", "dependency", "mail_user", "constraint"])
def test_fields_that_name_something_are_one_word_or_refused(field):
    texts = accepted(lambda text: SlurmExecutor(**{field: text}))
    spaces = [text for text in texts if any(character.isspace() for character in text)]
    assert spaces == [] or field == "constraint"
    assert not any(character in text for text in texts for character in "'\"\\")
