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
from typing import Any, NamedTuple

import submitit
from submitit.core import utils
from submitit.slurm.slurm import SlurmJob, _make_sbatch_string

from executors.base import Job, RefusedError
from executors.process.surroundings import launcher_of
from executors.slurm.cluster import minutes_of
from executors.slurm.run import FOLDER
from executors.slurm.settings import SlurmSettings
from executors.slurm.setup import FAILED_LINE, setup_block
from executors.slurm.task import Task
from neva_recipes.config import PlainTable
from neva_recipes.run_directory.exit_codes import EXIT_STOPPED
from neva_recipes.run_directory.layout import joined_log
from neva_recipes.secrets import is_secret, secret_names

__all__ = ["CODE_FILE", "batch_script", "submit", "submit_array", "write_code"]

CODE_FILE = "code.zip"
"""ZIP file in the run directory with the code that the job runs; Python imports from it directly.

One file is written and read much faster than hundreds of files, especially on the file systems of clusters.
"""

_PACKAGES = ("executors", "neva_model", "neva_recipes")

_RUN, _CODE = '"$_nemo_run_dir"', '"$_nemo_run_code"'
"""Shell words for the run directory and for the exit code of the script."""

_PLAIN_PATH = re.compile(r"[\w./+=:, -]+")

_OWN_VARIABLES = (
    *("ARRAY_INX", "BATCH", "CLUSTERS", "CONTAINER", "CPUS_PER_GPU", "ERROR", "EXPORT", "GET_USER_ENV", "GPUS"),
    *("GPUS_PER_NODE", "GPUS_PER_SOCKET", "GPUS_PER_TASK", "GRES", "INPUT", "JOB_NAME", "MEM_PER_GPU", "NO_REQUEUE"),
    *("NTASKS_PER_GPU", "OPEN_MODE", "OUTPUT", "OVERCOMMIT", "REQUEUE", "SIGNAL", "TEST_ONLY", "TRES_PER_TASK", "WAIT"),
)
"""Options that users may have set for their own jobs, as in `SBATCH_WAIT=1`, and that would break this job.

Requests for GPUs are among them, because `gpu_request` decides about those. Source: man sbatch, input environment
variables.
"""

_VARIABLES = {
    "cpus-per-task": ("CPUS_PER_TASK", "THREADS_PER_CORE"),
    "mem": ("MEM_PER_CPU", "MEM_PER_NODE"),
    "time": ("TIMELIMIT",),
}
"""Options of the script, and the variables (without SBATCH_) of other names that override or contradict them."""

_WRITERS = 16

_LOWEST_PORT, _PORTS = 20000, 10000
"""These ports are below those that Linux uses for outgoing connections (from 32768)."""


def batch_script(job: Job, executor: SlurmSettings, array: Path | None = None) -> str:
    """Return the batch script for sbatch.

    Args:
        job: The job; for an array, any of its jobs, which all have the same layout.
        executor: Its executor.
        array: For an array, the file that lists the run directories of the jobs, relative to its own folder.
    """
    options = _options(job, executor)
    further = _further_options(job, executor, array)
    # submitit quotes for a shell, which keeps backslashes inside quotes; sbatch does not.
    texts = {name: value for name, value in {**options, **further}.items() if "\\" in str(value) or "'" in str(value)}
    text: str = _make_sbatch_string(
        command=_task_command(job, executor, array),
        folder=job.run_dir / FOLDER,
        job_name=re.sub(r"[^\w.+-]", "_", job.run_dir.name if array is None else array.parent.name),
        use_srun=False,
        stderr_to_stdout=True,
        setup=_setup(job, executor, array),
        additional_parameters={name: value for name, value in further.items() if name not in texts},
        **{name: None if name in texts else value for name, value in options.items()},
    )
    shell, end, rest = text.partition("\n")
    return shell + end + "".join(_directive(name, str(value)) for name, value in texts.items()) + rest


def _directive(name: str, value: str) -> str:
    """Return an option as a line of a batch script, with quotes and backslashes escaped for sbatch."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'#SBATCH --{name}="{quoted}"\n'


def _options(job: Job, executor: SlurmSettings) -> PlainTable:
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


def _further_options(job: Job, executor: SlurmSettings, array: Path | None) -> PlainTable:
    """Return the options that submitit has no parameter for."""
    log = str(joined_log(job.run_dir))
    # Gets Slurm's messages about a script that fails before it opens its log. sbatch cannot take a path with quotes.
    options: PlainTable = {"output": log if array is None and _PLAIN_PATH.fullmatch(log) else "/dev/null"}
    if array is not None:
        number = array.read_bytes().count(b"\n")
        options["array"] = f"0-{number - 1}"
    if executor.reservation is not None:
        options["reservation"] = executor.reservation
    options["no-requeue" if executor.max_requeues == 0 else "requeue"] = True
    options.update({name: value or True for name, value in executor.sbatch.items()})
    return options


def _setup(job: Job, executor: SlurmSettings, array: Path | None) -> list[str]:
    python = shlex.join([sys.executable, "-P"])
    with_code = f"PYTHONPATH={_RUN}/{CODE_FILE}${{PYTHONPATH:+:$PYTHONPATH}}"
    end = f"{with_code if executor.code_snapshot else ''} {python} -m executors.slurm.end {_RUN} {_CODE}".strip()
    block = setup_block(executor.modules, executor.setup)
    return [
        f"_nemo_run_dir={_run_directory(job, array)}",
        f"exec >>{joined_log(Path(_RUN))} 2>&1",
        "_nemo_run_finish() {",
        "    _nemo_run_code=$?",
        f"    {end}{f' {FAILED_LINE}' if block else ''} || [ $? -ne {EXIT_STOPPED} ] || _nemo_run_code={EXIT_STOPPED}",
        f"    exit {_CODE}",
        "}",
        "trap _nemo_run_finish EXIT",
        "# What ends the job ends srun too; an srun that this shell leaves behind would end the next start of the job.",
        "trap : TERM",
        f"cd {_quoted(job.cwd)} || exit 1",
        *(f': "${{{name}:?is not in the environment of the job}}"' for name in secret_names(job.env)),
        *(f"export {name}={_quoted(value)}" for name, value in sorted(job.env.items()) if not is_secret(name, value)),
        *block,
        *([f"export {with_code}"] if executor.code_snapshot else []),
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        "# A node's name need not be known to the resolver; its address is known to Slurm.",
        'getent hosts "$MASTER_ADDR" >/dev/null ||',
        """    MASTER_ADDR=$(scontrol show node "$MASTER_ADDR" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')""",
        f"MASTER_PORT=$(({_LOWEST_PORT} + (SLURM_JOB_ID * 7 + ${{SLURM_RESTART_COUNT:-0}}) % {_PORTS}))",
        "export MASTER_ADDR MASTER_PORT",
        "export SUBMITIT_LOG_LEVEL=WARNING",
    ]


def _run_directory(job: Job, array: Path | None) -> str:
    """Return shell text for the run directory of a job, or of the current task of an array."""
    if array is None:
        return _quoted(job.run_dir)
    return f'{_quoted(array.parent)}/$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {_quoted(array)})'


def _task_command(job: Job, executor: SlurmSettings, array: Path | None) -> str:
    srun = ["srun", "--kill-on-bad-exit=1"]
    if executor.cpus_per_task is not None:
        srun.append(f"--cpus-per-task={executor.cpus_per_task}")  # srun does not inherit it from the job
    if executor.container_image is not None:
        mounts = [*(f"{path}:{path}" for path in dict.fromkeys((job.run_dir, job.cwd))), *executor.container_mounts]
        srun += [
            f"--container-image={executor.container_image}",
            f"--container-mounts={','.join(mounts)}",
            f"--container-workdir={executor.container_workdir or job.cwd}",
        ]
    task = [executor.python or sys.executable, "-P", "-u", "-m", "submitit.core._submit"]
    folder = _quoted(job.run_dir / FOLDER) if array is None else f"{_RUN}/{FOLDER}"
    return f"{' '.join(map(_quoted, [*srun, *executor.srun, *task]))} {folder}"


def _quoted(text: str | Path) -> str:
    """Return a text quoted as one bash word; escaped to ASCII if it is not valid UTF-8, which the script must be."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return "$'" + "".join(f"\\x{byte:02x}" for byte in os.fsencode(text)) + "'"
    return shlex.quote(str(text))


def write_code(run_dir: Path) -> None:
    """Write the installed packages into the run directory; replaces those of an earlier submission."""
    target = run_dir / CODE_FILE
    target.unlink(missing_ok=True)  # in a sweep, a link to the file that all points share
    installed = Path(__file__).parents[2]
    if installed.is_file():  # the command itself runs inside a job, from such a file
        shutil.copyfile(installed, target)
    else:
        target.write_bytes(_archive(installed, tuple(_sources(installed))))


class _Source(NamedTuple):
    """A file of the installed packages, with the metadata that change when it is edited."""

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
    """Return a ZIP file of the sources; not compressed, because every rank reads it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for source in sources:
            archive.writestr(zipfile.ZipInfo(str(source.path.relative_to(installed))), source.path.read_bytes())
    return content.getvalue()


class _Submitter(submitit.SlurmExecutor):  # type: ignore[misc]
    """submitit's Slurm executor with a given batch script, and without the pause between two submissions."""

    def __init__(self, folder: Path, script: str, on_submission: Callable[[str], None]) -> None:
        super().__init__(folder)
        self._throttling = 0
        self._script = script
        self._on_submission = on_submission

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self._script

    def _submit_command(self, command: str) -> SlurmJob[Any]:
        job = super()._submit_command(command)
        # Called before submitit writes the file that the tasks wait for.
        self._on_submission(job.job_id)
        return job


def submit(job: Job, executor: SlurmSettings, on_submission: Callable[[str], None]) -> None:
    """Submit the job of a written run directory.

    Args:
        job: The job.
        executor: Its executor.
        on_submission: Called with the job id before any rank of the job starts.

    Raises:
        RefusedError: Slurm refuses it.
    """
    folder = job.run_dir / FOLDER
    # If the cluster reuses job ids, submitit would mistake files of an earlier job for its own.
    shutil.rmtree(folder, ignore_errors=True)
    script = batch_script(job, executor)
    submitter = _Submitter(folder, script, on_submission)
    submitter.update_parameters(time=minutes_of(executor.time) if executor.time else None)
    try:
        # submitit prints the output of sbatch, which the error below also holds.
        with _environment(job.env, script), contextlib.redirect_stderr(io.StringIO()):
            submitter.submit(Task(str(job.run_dir)))
    except (utils.FailedJobError, utils.FailedSubmissionError) as error:
        raise _refusal(str(error)) from None


def submit_array(
    jobs: Sequence[Job], executor: SlurmSettings, folder: Path, on_submission: Callable[[Job, str], None]
) -> str:
    """Submit jobs of one layout with one call of sbatch.

    Args:
        jobs: The jobs, whose run directories are written.
        executor: Their executor.
        folder: Folder for the files that the jobs share.
        on_submission: Called from several threads with each job and its job id, before any rank of the job starts.

    Returns:
        The job id of the array.

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

    # Most of the time is spent on syncing the state.json of each job.
    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(hand_over, range(len(jobs))))
    return number


def _refusal(text: str) -> RefusedError:
    said = re.search(r"sbatch: (?:error|fatal): (.*)", text)
    words = said[1] if said else " ".join(text.split()) or "sbatch has failed without a word"
    return RefusedError(f"Slurm refuses the job: {words}")


@contextlib.contextmanager
def _environment(variables: dict[str, str], script: str) -> Iterator[None]:
    """Set the secret variables for sbatch, which passes its environment on to the job.

    The script sets the other variables, such as PATH, which apply to the ranks and not to sbatch.

    Removes variables that would override an option of the script (`SBATCH_PARTITION`), and all variables that launchers
    have set for this process: srun would take its options from those of Slurm.
    """
    options = re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE)
    own = {name for option in options for name in _VARIABLES.get(option, (option.upper().replace("-", "_"),))}
    unwanted = {f"SBATCH_{name}" for name in own.union(_OWN_VARIABLES)}
    unwanted |= {name for name in os.environ if launcher_of(name) is not None}
    removed = {name: os.environ.pop(name) for name in unwanted.intersection(os.environ)}
    try:
        with utils.environment_variables(**{name: variables[name] for name in secret_names(variables)}):
            yield
    finally:
        os.environ.update(removed)
