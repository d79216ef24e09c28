"""The batch script of a Slurm job, and its submission through submitit."""

import contextlib
import io
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import submitit
from submitit.core import utils
from submitit.slurm.slurm import SlurmJob, _make_sbatch_string

from executors._rank import EXIT_STOPPED
from executors._slurm_cluster import minutes_of
from executors._slurm_run import FOLDER
from executors._slurm_task import Task
from executors.base import RefusedError
from neva_recipes.secrets import is_secret, secret_names

if TYPE_CHECKING:
    from executors.job import Job
    from executors.slurm import SlurmExecutor

__all__ = ["CODE_FILE", "batch_script", "submit", "submit_array", "write_code"]

CODE_FILE = "code.zip"
"""File of the run directory with the code that the job runs: Python imports from it as it is.

One file is written and read much faster than some hundreds, on the file systems of clusters above all.
"""

_PACKAGES = ("executors", "neva_model", "neva_recipes")

_PLAIN_PATH = re.compile(r"[\w./+=:, -]+")

_OWN_VARIABLES = ("ARRAY_INX", "CLUSTERS", "ERROR", "EXPORT", "NO_REQUEUE", "REQUEUE", "WAIT")
"""Options that users may have set for their own jobs, as `SBATCH_WAIT=1`, and that ours would not bear."""

_VARIABLES = {
    "gpus-per-node": ("GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK", "GRES"),
    "gres": ("GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK", "GRES"),
    "mem": ("MEM_PER_CPU", "MEM_PER_GPU", "MEM_PER_NODE"),
    "time": ("TIMELIMIT",),
}
"""Variables, without SBATCH_, that stand against an option of the script, where they have another name than it."""

_PLACE_VARIABLES = ("SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER")
"""Variables that say where Slurm is, and nothing of a job."""

_WRITERS = 16

_LOWEST_PORT, _PORTS = 20000, 10000
"""Below the ports that Linux hands out for outgoing connections (32768 and more)."""


def batch_script(job: "Job", executor: "SlurmExecutor", array: Path | None = None) -> str:
    """Return the text that sbatch is given.

    Args:
        job: The job; any of them where the script is for several of the same layout.
        executor: Its executor.
        array: File of the run directories of several jobs, a line each, from its own folder on.
    """
    text: str = _make_sbatch_string(
        command=_task_command(job, executor, array),
        folder=job.run_dir / FOLDER,
        job_name=re.sub(r"[^\w.+-]", "_", job.run_dir.name if array is None else array.parent.name),
        use_srun=False,
        stderr_to_stdout=True,
        setup=_setup(job, executor, array),
        additional_parameters=_further_options(job, executor, array),
        **_options(job, executor),
    )
    return text


def _options(job: "Job", executor: "SlurmExecutor") -> dict[str, Any]:
    count = job.layout.processes_per_node
    gpus = f"{executor.gpu_model}:{count}" if executor.gpu_model else str(count)
    return {
        "time": None if executor.time is None else minutes_of(executor.time),
        "nodes": job.layout.num_nodes,
        "ntasks_per_node": count,
        "partition": executor.partition,
        "account": executor.account,
        "qos": executor.qos,
        "cpus_per_task": executor.cpus_per_task,
        "mem": executor.memory,
        "gres": f"gpu:{gpus}" if executor.gpu_request == "gres" else None,
        "gpus_per_node": gpus if executor.gpu_request == "gpus-per-node" else None,
        "constraint": executor.constraint,
        "nodelist": executor.nodelist,
        "exclude": executor.exclude,
        "exclusive": executor.exclusive or None,
        "mail_type": executor.mail_type,
        "mail_user": executor.mail_user,
        "comment": executor.comment,
        "dependency": executor.dependency,
        "signal_delay_s": executor.signal_delay_s,
        "wckey": None,
    }


def _further_options(job: "Job", executor: "SlurmExecutor", array: Path | None) -> dict[str, Any]:
    """Return the options that submitit has no parameter for."""
    log = str(job.run_dir / "logs" / "joined.log")
    # Slurm's own words on a script that did not get as far as to open its log. What needs quoting is beyond sbatch.
    options: dict[str, Any] = {"output": log if array is None and _PLAIN_PATH.fullmatch(log) else "/dev/null"}
    if array is not None:
        number = array.read_bytes().count(b"\n")
        options["array"] = f"0-{number - 1}"
    if executor.reservation is not None:
        options["reservation"] = executor.reservation
    options["no-requeue" if executor.max_requeues == 0 else "requeue"] = True
    options.update({name: value or True for name, value in executor.sbatch.items()})
    return options


def _setup(job: "Job", executor: "SlurmExecutor", array: Path | None) -> list[str]:
    python = shlex.join([sys.executable, "-P"])
    code = '"$run"/' + CODE_FILE
    with_code = f"PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}"
    end = f'{with_code if executor.code_snapshot else ""} {python} -m executors._slurm_end "$run" "$code"'.strip()
    return [
        f"run={_run_directory(job, array)}",
        'exec >>"$run/logs/joined.log" 2>&1',
        "finish() {",
        "    code=$?",
        f"    {end} || [ $? -ne {EXIT_STOPPED} ] || code={EXIT_STOPPED}",
        '    exit "$code"',
        "}",
        "trap finish EXIT",
        "# What ends the job ends srun too; an srun that this shell leaves behind would end the next start of the job.",
        "trap : TERM",
        f"cd {_quoted(job.cwd)} || exit 1",
        *(f': "${{{name}:?is not in the environment of the job}}"' for name in secret_names(job.env)),
        *(f"export {name}={_quoted(value)}" for name, value in sorted(job.env.items()) if not is_secret(name, value)),
        *(f"module load {shlex.quote(name)} || exit 1" for name in executor.modules),
        *executor.setup,
        *([f"export {with_code}"] if executor.code_snapshot else []),
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        "# A node's name need not be known to the resolver; its address is known to Slurm.",
        'getent hosts "$MASTER_ADDR" >/dev/null ||',
        """    MASTER_ADDR=$(scontrol show node "$MASTER_ADDR" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')""",
        f"MASTER_PORT=$(({_LOWEST_PORT} + (SLURM_JOB_ID * 7 + ${{SLURM_RESTART_COUNT:-0}}) % {_PORTS}))",
        "export MASTER_ADDR MASTER_PORT",
        "export SUBMITIT_LOG_LEVEL=WARNING",
    ]


def _run_directory(job: "Job", array: Path | None) -> str:
    """Return the shell's words for the run directory of a job, or of the one whose turn it is in an array."""
    if array is None:
        return _quoted(job.run_dir)
    return f'{_quoted(array.parent)}/$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {_quoted(array)})'


def _task_command(job: "Job", executor: "SlurmExecutor", array: Path | None) -> str:
    srun = ["srun", "--kill-on-bad-exit=1"]
    if executor.cpus_per_task is not None:
        srun.append(f"--cpus-per-task={executor.cpus_per_task}")  # srun does not take it from the job
    if executor.container_image is not None:
        mounts = [*(f"{path}:{path}" for path in dict.fromkeys((job.run_dir, job.cwd))), *executor.container_mounts]
        srun += [
            f"--container-image={executor.container_image}",
            f"--container-mounts={','.join(mounts)}",
            f"--container-workdir={executor.container_workdir or job.cwd}",
        ]
    task = [executor.python or sys.executable, "-P", "-u", "-m", "submitit.core._submit"]
    folder = _quoted(job.run_dir / FOLDER) if array is None else f'"$run"/{FOLDER}'
    return f"{' '.join(map(_quoted, [*srun, *executor.srun, *task]))} {folder}"


def _quoted(text: str | Path) -> str:
    """Return a text as bash takes it for one word: in ASCII if it has bytes that are not UTF-8, as no script has."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return "$'" + "".join(f"\\x{byte:02x}" for byte in os.fsencode(text)) + "'"
    return shlex.quote(str(text))


def write_code(run_dir: Path) -> None:
    """Write the installed packages into the run directory, in place of what an earlier submission has left."""
    target = run_dir / CODE_FILE
    target.unlink(missing_ok=True)  # in a sweep, the link to the one of all points
    installed = Path(__file__).parent.parent
    if installed.is_file():  # the command is itself part of a job, and runs such a file
        shutil.copyfile(installed, target)
    else:
        target.write_bytes(_archive(installed, tuple(_sources(installed))))


class _Source(NamedTuple):
    """A file of the installed packages, and what changes when it is changed."""

    path: Path
    size: int
    modified: int
    changed: int
    inode: int


def _sources(installed: Path) -> Iterator[_Source]:
    for package in _PACKAGES:
        for folder, folders, names in os.walk(installed / package):
            folders[:] = sorted(set(folders) - {"__pycache__"})
            for path in (Path(folder, name) for name in sorted(names)):
                status = path.stat()
                yield _Source(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@lru_cache(maxsize=1)
def _archive(installed: Path, sources: tuple[_Source, ...]) -> bytes:
    """Return a ZIP file of some files, as they are now; not compressed, for every rank reads it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for source in sources:
            archive.writestr(zipfile.ZipInfo(str(source.path.relative_to(installed))), source.path.read_bytes())
    return content.getvalue()


class _Submitter(submitit.SlurmExecutor):
    """submitit's own executor, for a script that is ready, and without its pause between two submissions."""

    def __init__(self, folder: Path, script: str, on_submission: Callable[[str], None]) -> None:
        super().__init__(folder)
        self._throttling = 0
        self._script = script
        self._on_submission = on_submission

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self._script

    def _submit_command(self, command: str) -> SlurmJob[Any]:
        job = super()._submit_command(command)
        # Before submitit puts in place what the tasks wait for.
        self._on_submission(job.job_id)
        return job


def submit(job: "Job", executor: "SlurmExecutor", on_submission: Callable[[str], None]) -> None:
    """Submit the job of a written run directory.

    Args:
        job: The job.
        executor: Its executor.
        on_submission: Called with the number of the job before any rank of it starts.

    Raises:
        RefusedError: Slurm refuses it.
    """
    folder = job.run_dir / FOLDER
    # submitit would take what was left of an earlier job for its own if numbers of jobs begin anew.
    shutil.rmtree(folder, ignore_errors=True)
    script = batch_script(job, executor)
    submitter = _Submitter(folder, script, on_submission)
    submitter.update_parameters(time=minutes_of(executor.time) if executor.time else None)
    try:
        # submitit prints what sbatch says, which is told below.
        with _environment(job.env, script), contextlib.redirect_stderr(io.StringIO()):
            submitter.submit(Task(str(job.run_dir)))
    except (utils.FailedJobError, utils.FailedSubmissionError) as error:
        raise _refusal(str(error)) from None


def submit_array(
    jobs: Sequence["Job"], executor: "SlurmExecutor", folder: Path, on_submission: Callable[["Job", str], None]
) -> str:
    """Submit jobs of one layout by one call of sbatch.

    Args:
        jobs: The jobs, whose run directories are written.
        executor: Their executor.
        folder: Where to put what they share.
        on_submission: Called with each job and its number before any rank of it starts; for several at a time.

    Returns:
        The number of the array.

    Raises:
        RefusedError: Slurm refuses them.
    """
    array = folder / f"array-{secrets.token_hex(4)}.txt"
    lines = [f"{os.path.relpath(job.run_dir, folder)}\n" for job in jobs]
    array.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    for job in jobs:
        shutil.rmtree(job.run_dir / FOLDER, ignore_errors=True)
        (job.run_dir / FOLDER).mkdir()
    script = batch_script(jobs[0], executor, array)
    path = array.with_suffix(".sh")
    path.write_text(script, encoding="utf-8")
    with _environment(jobs[0].env, script):
        result = subprocess.run(
            ["sbatch", "--parsable", path], capture_output=True, text=True, errors="replace", check=False
        )
    if result.returncode:
        raise _refusal(result.stderr or f"sbatch ended with exit code {result.returncode}")
    number = result.stdout.strip().partition(";")[0]

    def hand_over(index: int) -> None:
        job, job_id = jobs[index], f"{number}_{index}"
        on_submission(job, job_id)
        task = utils.DelayedSubmission(Task(str(job.run_dir)))
        task.set_timeout(minutes_of(executor.time) or 0 if executor.time else 0, 0)
        paths = utils.JobPaths(folder=job.run_dir / FOLDER, job_id=job_id)
        with utils.temporary_save_path(paths.submitted_pickle) as unfinished:
            task.dump(unfinished)

    # Most of the time goes by until state.json of each is on the disk.
    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(hand_over, range(len(jobs))))
    return number


def _refusal(text: str) -> RefusedError:
    said = re.search(r"sbatch: (?:error|fatal): (.*)", text)
    words = said[1] if said else " ".join(text.split()) or "sbatch has failed without a word"
    return RefusedError(f"Slurm refuses the job: {words}")


@contextlib.contextmanager
def _environment(variables: dict[str, str], script: str) -> Iterator[None]:
    """Set the secret ones of some variables for sbatch, which passes on its environment to the job.

    The script sets the others, for the ranks: a PATH of theirs is not one to find sbatch by.

    What would replace an option of the script (`SBATCH_PARTITION`) is taken away, and so is, where this process is in a
    job itself, what Slurm has set for that one: srun takes its options from there.
    """
    options = re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE)
    own = {name for option in options for name in _VARIABLES.get(option, (option.upper().replace("-", "_"),))}
    unwanted = {f"SBATCH_{name}" for name in own.union(_OWN_VARIABLES)}
    if "SLURM_JOB_ID" in os.environ:
        unwanted |= {name for name in os.environ if name.startswith("SLURM_") and name not in _PLACE_VARIABLES}
    removed = {name: os.environ.pop(name) for name in unwanted.intersection(os.environ)}
    try:
        with utils.environment_variables(**{name: variables[name] for name in secret_names(variables)}):
            yield
    finally:
        os.environ.update(removed)
