"""Lines of shell before the ranks: the first that fails ends the job and is its reason; common idioms do not."""

import subprocess

import pytest

from executors.slurm.setup import FAILED_LINE, setup_block
from neva_recipes.config import UserError
from tests.slurm.slurm_jobs import make_job, start

SCRIPTS = {
    "careless.sh": "false\nls /missing | cat\nexport FROM_SCRIPT=1\n",
    "last.sh": "true\nfalse\n",
    "strict.sh": "set -e\nfalse\ntrue\n",
    "leaving.sh": "exit 5\n",
    "returning.sh": 'case $- in *i*) ;; *) return;; esac\nfalse\n',
}  # fmt: skip


def shell(folder, setup, modules=()):
    """Run the block alone; return its exit code, the number of the line it ended at, and what it printed."""
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
    script = [
        "_nemo_run_finish() {",
        "    _nemo_run_code=$?",
        f"    echo left $_nemo_run_code {FAILED_LINE} >&2",
        "}",
        "trap _nemo_run_finish EXIT",
    ]
    script += ["# more of the batch script"] * 7
    script += ['module() { [ "$2" = there ]; }', *setup_block(modules, setup), 'echo "the ranks"']
    (folder / "batch.sh").write_text("\n".join(script) + "\n")
    done = subprocess.run(["bash", folder / "batch.sh"], cwd=folder, capture_output=True, text=True, check=False)
    words = done.stderr.splitlines()[-1].split()
    assert words[:2] == ["left", str(done.returncode)]
    return done.returncode, int(words[2]) if len(words) > 2 else None, done.stdout


FAILING = [
    (["true", "false"], 1, 2),
    (["source /missing"], 1, 1),
    ([". /missing", "true"], 1, 1),
    (["true", "ehco typo"], 127, 2),
    (["false | true"], 1, 1),
    (["cat /missing | tee copy"], 1, 1),
    (["true && false"], 1, 1),
    (["test -d / && cd /missing"], 1, 1),
    (["A=$(false)"], 1, 1),
    (["source ./last.sh"], 1, 1),
    (["true", "source ./strict.sh"], 1, 2),
    (["source ./leaving.sh"], 5, 1),
    (["true", "exit 3"], 3, 2),
    (["true", "exit 0"], 0, 2),
    (["set -u", "echo $NOT_SET"], 1, 2),
    ([": ${NOT_SET:?is missing}"], 1, 1),
    (["if true; then", "  cd /missing", "fi"], 1, 2),
    (["for n in 1 2; do", "  true", "  false", "done"], 1, 3),
    (["f() {", "  true", "  return 4", "}", "f"], 4, 5),
    (["(cd /missing", "true)", "(exit 6)"], 6, 3),
    (["cat <<END", "a", "END", "false"], 1, 4),
    (["module load there", "module load missing"], 1, 2),
    (["eval false"], 1, 1),
    (['eval "$(echo false; echo true)"'], 1, 1),
    (["export B=1 \\", "  C=2", "false"], 1, 3),
]


@pytest.mark.parametrize(("setup", "code", "line"), FAILING)
def test_a_line_that_fails_ends_the_job(tmp_path, setup, code, line):
    found = shell(tmp_path, setup)
    assert (found[0], found[1]) == (code, line)
    assert "the ranks" not in found[2]


IDIOMS = [
    ["export A=$(false)", "export A=$(hostname)"],
    ["false && true", "[ -d /missing ] && cd /missing", "false || true", "! true", '[[ -n "" ]] && echo'],
    ["if false; then", "  false", "elif grep -q x /dev/null; then", "  false", "fi"],
    ["while false; do :; done", "until true; do :; done"],
    ["f() {", "  false", "  [ -d /missing ]", "  true", "}", "f"],
    ["source ./careless.sh", '[ "$FROM_SCRIPT" = 1 ]', "source ./returning.sh"],
    ["source ./last.sh || true", ": $(false)"],
    ["yes | head -n 1", "seq 100000 | grep -m1 7"],
    ["cat >config <<'END'", "false", "END", "module load there"],
    ["shopt -s extglob", "ls !(config|*.py) >/dev/null"],
    ["set -e", "f() { false; }", "if f; then :; fi"],
    ["set -u", "echo ${NOT_SET:-}"],
]


@pytest.mark.parametrize("setup", IDIOMS)
def test_idioms_are_no_failures(tmp_path, setup):
    code, line, printed = shell(tmp_path, setup)
    assert (code, line) == (0, None)
    assert printed.endswith("the ranks\n")


def test_names_of_the_user_stay_the_users(tmp_path):
    """The lines share a shell with ours, whose traps run between them."""
    (tmp_path / "env").write_text("A=1\nB=two\n")
    setup = [
        'while read -r line; do export "$line"; done <env',
        "line=mine code=mine run=mine setup_at=mine",
        "finish() { echo mine; }",
        "yes | head -n 1 >/dev/null",
        "[ -d /missing ] || true",
        'echo "$A $B $line $code $run $setup_at"',
    ]
    assert shell(tmp_path, setup) == (0, None, "1 two mine mine mine mine\nthe ranks\n")
    assert shell(tmp_path, [*setup, "false"])[:2] == (1, 7)


def test_a_module_that_is_not_there(tmp_path):
    assert shell(tmp_path, ["false"], ["there", "not there"])[:2] == (1, 2)


@pytest.mark.parametrize(
    ("setup", "problem"),
    [
        (["if true; then"], "line 2: syntax error: unexpected end of file"),
        (["true", "fi"], "line 2: syntax error near unexpected token `fi'"),
        (['echo "a'], "line 1: unexpected EOF while looking for matching `\"'"),
        (["cat <<END", "a"], "here-document at line 1 delimited by end-of-file (wanted `END')"),
        (["export A=1 \\"], "the last line ends with a backslash, and nothing follows: remove it"),
    ],
)
def test_no_shell(tmp_path, setup, problem):
    """The rest of the batch script would be taken for a part of it."""
    with pytest.raises(UserError) as caught:
        make_job("/rank.py", tmp_path, setup=setup)
    assert str(caught.value).removeprefix("executor.setup: ") == problem


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"setup": ["export A=1", "source /missing", "touch late"]},
            "executor.setup: 'source /missing' failed with exit code 1 (/missing: No such file or "
            "directory); if that does not matter, append `|| true`",
        ),
        ({"setup": ["exit 0"]}, "executor.setup: 'exit 0' has ended the job before its ranks (exit code 0)"),
        (
            {"modules": ["cuda/99"], "setup": ["touch late"]},
            "executor.modules: 'module load cuda/99' failed with exit code 127 (module: command not "
            "found); if that does not matter, append `|| true`",
        ),
    ],
)
def test_the_reason_of_the_run(cluster, script, tmp_path, fields, reason):
    """On two nodes with two ranks each it is said once, and no rank starts."""
    body = script("(run_dir / 'late').touch()")
    run = start(body, tmp_path, 2, 2, gpu_request="none", **fields)
    assert run.wait() == 2
    assert run.status().reason == reason
    assert not (run.path / "late").exists() and not [*(run.path / "logs").glob("rank-*.log")]


def test_what_the_lines_set_reaches_the_ranks(cluster, script, tmp_path):
    setup = ["value() {", '  echo "a b"', "}", 'export SET="$(value)"', "false || export CHAIN=1"]
    body = script("(run_dir / f'set-{rank}').write_text(os.environ['SET'] + os.environ['CHAIN'])")
    run = start(body, tmp_path, 2, 1, gpu_request="none", setup=setup)
    assert run.wait() == 0, run.status()
    assert [(run.path / f"set-{rank}").read_text() for rank in (0, 1)] == ["a b1", "a b1"]
