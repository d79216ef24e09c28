"""Executors by name: kinds, profiles in TOML and Python, those of packages, and fields set on the command line."""

import dataclasses
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import executor_jobs
import fiddle as fdl
import pytest

import executors
from executors import LocalExecutor
from executors.job_record import executor_class, load_executor
from executors.profiles import profile_files
from executors.registry import executor_config, executor_kinds, find_executor, find_profile, list_profiles
from neva_recipes.cli.main import main
from neva_recipes.config import UserError, build, config, set_field

TOKEN = "hf_" + "a1B2" * 9

PROFILES_IN_PYTHON = """
import fiddle as fdl
from executors import LocalExecutor
from neva_recipes.config import Recipe, config

def patient() -> fdl.Config[LocalExecutor]:
    return config(LocalExecutor, grace_seconds=77.0)

def wrong() -> fdl.Config[LocalExecutor]:
    return LocalExecutor()

def failing() -> fdl.Config[LocalExecutor]:
    return config(LocalExecutor, grace=1)

def built() -> LocalExecutor:
    return LocalExecutor()

def _hidden() -> fdl.Config[LocalExecutor]:
    return config(LocalExecutor)

def bare() -> fdl.Config:
    raise AssertionError("is called, though nothing says that it makes an executor")


def other() -> int:
    return 1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty project, and an empty folder for the user's configuration."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def write(folder):
    """Write the project's profiles, or the user's."""

    def write_profiles(text, place="project"):
        path = folder / {"project": "project/executors.toml", "user": "config/nemo-run/executors.toml"}[place]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    return write_profiles


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package that offers executors."""

    def install_package(name, source, entry_points):
        site = tmp_path / f"site-{name}"
        metadata = site / f"{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (site / f"{name}.py").write_text(source)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[neva_recipes.executors]\n{entry_points}\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, name, raising=False)

    return install_package


DOCS = Path(__file__).parents[2] / "docs" / "executors.md"


def test_what_the_documentation_shows(write, folder):
    blocks = re.findall(r"^```(toml|python)\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (profiles,) = [text for kind, text in blocks if kind == "toml" and "[juwels]" in text]
    write(profiles)
    assert find_executor("juwels", {"time": "30"}).record()["partition"] == "booster"
    assert find_executor("workstation") == LocalExecutor(grace_seconds=60.0)
    (making,) = [text for _, text in blocks if "set_field(patient" in text]
    names = {}
    exec(making, names)
    assert names["executor"] == LocalExecutor(grace_seconds=90.0)
    (function,) = [text for _, text in blocks if "def debug()" in text]
    (folder / "lab.py").write_text(function)
    assert find_executor("debug", recipes=folder / "lab.py").env["NCCL_DEBUG"] == "INFO"


def test_a_kind_has_its_defaults():
    assert find_executor() == find_executor("local") == LocalExecutor()
    assert {"local"} <= {kind.name for kind in executor_kinds()}


def test_listing_kinds_imports_none():
    code = "import sys; from executors.registry import executor_kinds; print(len(executor_kinds()), *sys.modules)"
    count, *modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(count) >= 1
    assert not {
        "executors.slurm.executor",
        "executors.docker.executor",
        "executors.nemo_run.executor",
        "nemo_run",
        "docker",
        "submitit",
    } & {*modules}


def test_every_built_in_kind_is_what_it_is_called():
    for kind in executor_kinds():
        assert kind.load().kind == kind.name


def test_a_profile_fills_in_fields(write):
    write('[juwels]\nkind = "local"\ngrace_seconds = 3\nenv = { A = "x y" }\n["odd.name"]\nkind = "local"\n')
    assert find_executor("juwels") == LocalExecutor(grace_seconds=3.0, env={"A": "x y"})
    assert find_executor("odd.name") == LocalExecutor()


def test_fields_of_the_command_line_win(write):
    write('[juwels]\nkind = "local"\ngrace_seconds = 3\n[juwels.env]\nA = "1"\nB = "2"\n')
    found = find_executor("juwels", {"grace_seconds": "4", "env.B": "three", "env.C": ""})
    assert found == LocalExecutor(grace_seconds=4.0, env={"A": "1", "B": "three", "C": ""})
    assert find_executor("juwels") == LocalExecutor(grace_seconds=3.0, env={"A": "1", "B": "2"})


def test_the_project_wins_over_the_user(write):
    write('[here]\nkind = "local"\ngrace_seconds = 1\nenv = { A = "user" }\n[mine]\nkind = "local"\n', "user")
    write('[here]\nkind = "local"\ngrace_seconds = 2\n')
    assert find_executor("here") == LocalExecutor(grace_seconds=2.0)
    assert find_executor("mine") == LocalExecutor()
    assert [(profile.name, Path(profile.origin).parent.name) for profile in list_profiles()] == [
        ("here", ""),
        ("mine", "nemo-run"),
    ]


def test_without_xdg_config_home_the_users_file_is_below_home(write, folder, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(folder / "home"))
    file = folder / "home" / ".config" / "nemo-run" / "executors.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[mine]\nkind = "local"\ngrace_seconds = 5\n')
    assert find_executor("mine").grace_seconds == 5


def test_a_function_of_the_recipes_file_is_a_profile(write, folder):
    write('[patient]\nkind = "local"\n')
    file = folder / "lab.py"
    file.write_text(PROFILES_IN_PYTHON)
    assert find_executor("patient", recipes=file) == LocalExecutor(grace_seconds=77.0)
    assert find_executor("patient", {"grace_seconds": "1"}, recipes=file) == LocalExecutor(grace_seconds=1.0)
    assert find_executor("patient") == LocalExecutor()
    assert {profile.name for profile in list_profiles(file)} == {"patient", "wrong", "failing", "built"}


def test_a_file_of_profiles_alone_goes_with_built_in_recipes(folder, capsys):
    (folder / "lab.py").write_text(PROFILES_IN_PYTHON)
    words = ["llava.finetune", "--recipes", str(folder / "lab.py"), "--executor", "patient", "--dry-run", "--script"]
    assert main([*words, "trainer.devices=1"]) in (0, 2)
    assert '"grace_seconds": 77.0' in capsys.readouterr().out


def test_history_tells_where_a_value_is_from(write):
    path = write('# cluster\n\n[juwels]\nkind = "local"\n\ngrace_seconds = 3\n[juwels.env]\nA = "1"\n')
    executor = executor_config(find_profile("juwels"), {"env.B": "2"})
    history = {name: executor.__argument_history__[name][-1].location for name in ("grace_seconds", "env")}
    assert (history["grace_seconds"].filename, history["grace_seconds"].line_number) == (path.name, 6)
    assert history["env"].filename == "command line"


def test_executors_are_configs_like_recipes():
    executor = config(LocalExecutor, env={"A": "1"})
    set_field(executor, "grace_seconds", "2")
    set_field(executor, "env.B", "x=y, z")
    assert build(executor) == LocalExecutor(grace_seconds=2.0, env={"A": "1", "B": "x=y, z"})
    assert fdl.get_callable(executor) is LocalExecutor


@pytest.mark.parametrize(
    ("toml", "name", "overrides", "message"),
    [
        ("", "juwls", {}, "executor juwls: no such kind or profile; nemo-run executors shows all"),
        ("", "locl", {}, r"no such kind or profile \(did you mean local\?\)"),
        ('[juwels]\nkind="local"', "juwles", {}, r"did you mean juwels\?"),
        ('[local]\nkind="local"', "local", {}, "executors.toml: local is the name of a kind"),
        ("[juwels]\n", "juwels", {}, r"executors.toml, line 1: \[juwels\] has no kind: add kind ="),
        (
            '\n[j]\nkind = "locale"',
            "j",
            {},
            r"line 3: \[j\] kind: 'locale' is not a kind of executor \(did you mean local",
        ),
        ("[j]\nkind = 3", "j", {}, r"line 2: \[j\] kind: 3 is not a kind of executor"),
        ('[j]\nkind = "local"\ngrace = 1', "j", {}, r"line 3: \[j\] grace: local executors have no such field"),
        (
            '[j]\nkind = "slurm"\nnodes = 4',
            "j",
            {},
            r"line 3: \[j\] nodes: .*did you mean trainer.num_nodes, which is a field",
        ),
        ('[j]\nkind = "slurm"\ngpus-per-node = 8', "j", {}, r"\[j\] gpus-per-node: .*\(did you mean trainer.devices, "),
        ("", "slurm", {"nodes": "4"}, r"^executor.nodes: no such field \(did you mean trainer.num_nodes, "),
        ("", "slurm", {"num_nodes": "4"}, r"^executor.num_nodes: no such field \(did you mean trainer.num_nodes, "),
        ("", "slurm", {"gpus_per_node": "8"}, r"^executor.gpus_per_node: no such field \(did you mean trainer.devices"),
        ("", "slurm", {"ntasks-per-node": "8"}, r"^executor.ntasks-per-node: .* \(did you mean trainer.devices"),
        ("", "local", {"gpus": "8"}, r"^executor.gpus: no such field \(did you mean trainer.devices"),
        ("", "docker", {"nnodes": "8"}, r"^executor.nnodes: no such field \(did you mean trainer.num_nodes"),
        ('[j]\nkind = "local"\ngrace_second = 1', "j", {}, r"did you mean grace_seconds\?"),
        ('[j]\nkind = "local"\ngrace_seconds = "1"', "j", {}, r"line 3: \[j\] grace_seconds='1': expected a number"),
        (
            '[j]\nkind="local"\ngrace_seconds = 2020-01-01',
            "j",
            {},
            r"line 3: \[j\] grace_seconds=.*: expected a number",
        ),
        ('[j]\nkind = "local"\n[j.env]\nN = 4', "j", {}, r"line 4: \[j\] env.N=4: expected a string"),
        ('[j]\nkind = "local"\nenv = "A=1"', "j", {}, r"line 3: \[j\] env='A=1': expected a table"),
        ('[j]\nkind = "local"\nenv."A B" = "1"', "j", {}, r"line 3: \[j\] env: name='A B': expected a name"),
        (
            '[j]\nkind = "local"\nenv.RANK = "1"',
            "j",
            {},
            r"RANK is set by the executor .* \(profile j of executors.toml\)",
        ),
        ('[o]\nj = 1\n[j.env]\nA = "\\u0000"', "j", {}, r"line 3: \[j\] has no kind"),
        ('[o]\nj = 1\n\n[j]\nkind = "local"\n[j.env]\n# A\nA = 1', "j", {}, r"line 8: \[j\] env.A=1: expected"),
        ("[j]\nkind = local", "j", {}, "executors.toml, line 2: is not TOML: Invalid value"),
        ('[j]\nkind = "local"\n[j]\n', "j", {}, "executors.toml, line 3: is not TOML"),
        ('kind = "local"', "local", {}, r"executors.toml, line 1: kind is outside of every table: expected \[NAME\]"),
        ('["a b"]\nkind = "local"', "a b", {}, r"line 1: \['a b'\]: a profile's name is made of letters"),
        ("", "local", {"grace": "1"}, "executor.grace: no such field"),
        (
            "",
            "local",
            {"grace_secs": "1"},
            r"executor.grace_secs: no such field \(did you mean executor.grace_seconds\?\)",
        ),
        ("", "local", {"grace_seconds": "long"}, "executor.grace_seconds='long': expected a number"),
        ("", "local", {"grace_seconds": "-1"}, "executor.grace_seconds='-1': expected a number >= 0"),
        ("", "local", {"env": "A=1"}, "executor.env=A=1: is a table, .*: executor.env.NAME=VALUE"),
        ("", "local", {"env.A-B": "1"}, "executor.env: name='A-B': expected a name of letters"),
        ("", "local", {"env.WORLD_SIZE": "1"}, "WORLD_SIZE is set by the executor itself"),
        (
            "",
            "local",
            {"env.A": "a\0b"},
            r"executor.env.A='a\\x00b': expected a string an environment variable can hold",
        ),
        ("", "local", {"grace_seconds.x": "1"}, "executor.grace_seconds is a field, not a group of fields"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(write, toml, name, overrides, message):
    if toml:
        write(toml)
    with pytest.raises(UserError, match=message) as raised:
        find_executor(name, overrides)
    assert "\n" not in str(raised.value)


def test_a_secret_under_an_innocent_name_is_refused(monkeypatch):
    monkeypatch.setenv("CORP_PASSWORD", "correct horse battery")
    with pytest.raises(UserError, match=r"executor.env.GREETING: holds the value of .* CORP_PASSWORD") as raised:
        find_executor("local", {"env.GREETING": "correct horse battery"})
    assert "correct horse" not in str(raised.value)
    assert find_executor("local", {"env.MY_PASSWORD": "correct horse battery"}).record()["env"] == {}


def test_a_folder_of_others_is_no_mistake(folder, monkeypatch):
    (folder / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "file"))
    assert list_profiles() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", r"lab.py: wrong returned a value of type LocalExecutor: expected a Draft of an executor"),
        ("failing", r"lab.py: failing: LocalExecutor has no field grace"),
        ("built", r"lab.py: built returned a value of type LocalExecutor: expected a Draft of an executor"),
        ("_hidden", "no such kind or profile"),
        ("other", "no such kind or profile"),
        ("patien", r"did you mean patient\?"),
    ],
)
def test_a_mistake_in_python_is_one_line(name, message, folder):
    file = folder / "lab.py"
    file.write_text(PROFILES_IN_PYTHON)
    with pytest.raises(UserError, match=message):
        find_executor(name, recipes=file)


def test_files_that_cannot_be_read(folder, write):
    (folder / "project" / "executors.toml").mkdir()
    with pytest.raises(UserError, match=r"executors.toml: cannot be read: Is a directory"):
        find_executor("juwels")
    (folder / "project" / "executors.toml").rmdir()
    (folder / "project" / "executors.toml").write_bytes(b"[a]\nkind = '\xff'")
    with pytest.raises(UserError, match=r"executors.toml: is not UTF-8"):
        find_executor("juwels")


def test_a_mistake_in_one_profile_does_not_hinder_others(write):
    write('[bad]\nkind = "x"\ngrace = 1\n[good]\nkind = "local"\n')
    assert find_executor("good") == find_executor("local") == LocalExecutor()


def test_packages_offer_executors(install, write, runs_dir):
    install(
        "mylab",
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom executors import LocalExecutor\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(LocalExecutor):\n"
        '    """Like local, with a colour."""\n\n    kind: ClassVar[str] = "mine"\n    colour: str = "red"\n'
        '    """Its colour."""\n',
        "mine = mylab:Mine\n",
    )
    write('[blue]\nkind = "mine"\ncolour = "blue"\n')
    found = find_executor("blue", {"env.A": "1"})
    assert (found.kind, found.colour, found.env) == ("mine", "blue", {"A": "1"})
    job = executors.plan_job(executor_jobs.make_recipe(), found, runs_dir=runs_dir)
    record = {"name": "run", "executor": found.record()}
    assert executor_class(record) is type(found) and load_executor(record, {}) == found == job.executor


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_this_name\n", "executor mine .*: ModuleNotFoundError"),
        ("Mine = 3\n", "expected a subclass of executors.Executor, got 3"),
        ("from executors import LocalExecutor as Mine\n", "LocalExecutor.kind is 'local': expected 'mine'"),
        ("from executors import LocalExecutor\nclass Mine(LocalExecutor):\n    kind = 'mine'\n", "not declared with"),
        (
            "from dataclasses import dataclass\nfrom executors import Executor\n"
            "@dataclass(frozen=True, kw_only=True)\nclass Mine(Executor):\n    kind = 'mine'\n",
            "Mine lacks check, is_alive, job_environment, request_cancel, script, start",
        ),
    ],
)
def test_what_a_package_offers_wrongly(install, source, message):
    install("mylab", source, "mine = mylab:Mine\n")
    with pytest.raises(UserError, match=message):
        find_executor("mine")
    assert find_executor("local") == LocalExecutor()


def test_two_packages_of_one_name(install):
    install("mylab", "", "mine = mylab:Mine\n")
    install("yourlab", "", "mine = yourlab:Mine\n")
    with pytest.raises(UserError, match=r"executor mine: offered by package .*lab and package .*lab; uninstall one"):
        find_executor("mine")


def test_a_run_of_an_unknown_kind_says_so():
    with pytest.raises(UserError, match=r"run old: 'locl' is not a kind of executor \(did you mean local\?\)"):
        executor_class({"name": "old", "executor": {"kind": "locl"}})


def test_a_secret_in_a_profile_is_passed_on_and_shown_nowhere(write, script, runs_dir, capfd, processes):
    path = write(f'[lab]\nkind = "local"\nenv = {{ HF_TOKEN = "{TOKEN}", PLAIN = "seen" }}\n')
    executor = find_executor("lab")
    assert executor.env["HF_TOKEN"] == TOKEN and TOKEN not in repr(executor)
    assert find_profile("lab").remarks == ()
    path.chmod(0o644)
    (remark,) = find_profile("lab").remarks
    assert "HF_TOKEN" in remark and "chmod 600" in remark and TOKEN not in remark

    assert main(["executors"]) == main(["executors", "lab"]) == 0
    main(["llava.finetune", "--executor", "lab", "--dry-run"])
    printed = capfd.readouterr()
    assert "executor.env.PLAIN=seen" in printed.out and "executor.env.HF_TOKEN=***" in printed.out
    assert "PLAIN=seen" in printed.out.partition("\nCommand of")[2]
    assert "warning: executors.toml, line 1: [lab] holds HF_TOKEN" in printed.err

    job = executors.plan_job(executor_jobs.make_recipe(), executor, runs_dir=runs_dir)
    program = script("print(os.environ['HF_TOKEN'][::-1])")
    job = dataclasses.replace(job, argv=(sys.executable, "-S", str(program)))
    run = executors.start_job(job, detach=True)
    assert run.wait() == 0
    assert TOKEN[::-1] in (run.path / "logs" / "rank-0.log").read_text()
    assert not [file for file in run.path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
    assert TOKEN not in printed.out + printed.err


def test_a_resume_changes_fields_of_the_executor(write, script, folder, monkeypatch, capfd):
    write(f'[lab]\nkind = "local"\ngrace_seconds = 3\nenv = {{ HF_TOKEN = "{TOKEN}", A = "1" }}\n')
    job = executors.plan_job(executor_jobs.make_recipe(), find_executor("lab"))
    program = script("print('A is', os.environ['A'])")
    run = executors.start_job(dataclasses.replace(job, argv=(sys.executable, "-S", str(program))), detach=True)
    assert run.wait() == 0

    assert main(["resume", run.name, "executor.env.A=2"]) == 2
    assert "HF_TOKEN was set for run tiny and is not stored in it" in capfd.readouterr().err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(["resume", run.name, "executor.grace=1"]) == 2
    assert main(["resume", run.name, "executor.env.A=2"]) == 0
    assert "A is 2" in capfd.readouterr().out
    assert run.executor() == LocalExecutor(grace_seconds=3.0, env={"HF_TOKEN": TOKEN, "A": "2"})
    assert main(["resume", run.name]) == 0
    assert "A is 2" in capfd.readouterr().out
    assert not [file for file in run.path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]


def test_the_command_lists_and_describes(write, capsys):
    write('[juwels]\nkind = "local"\ngrace_seconds = 3\n[broken]\nkind = "x"\n')
    assert main(["executors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "kinds:" and "profiles:" in lines
    assert any(line.split() == ["juwels", "local,", "from", "executors.toml"] for line in lines)
    assert any(line.startswith("  broken") and "cannot be used: executors.toml, line 5" in line for line in lines)
    assert main(["executors", "juwels", "executor.env.A=1 2"]) == 0
    text = capsys.readouterr().out
    assert "  executor.grace_seconds=3.0\n      Seconds between asking" in text
    assert "From executors.toml:3." in text and "[a number >= 0 and <= 3600]" in text
    assert "  executor.env.A='1 2'\n" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["executors", "nothing"], "executor nothing: no such kind or profile"),
        (["executors", "local", "optim.lr=1"], "optim.lr=1: expected executor.FIELD=VALUE"),
        (["executors", "local", "executor.grace=1"], "executor.grace: no such field"),
        (["executors", "local", "words"], "words: expected key=value"),
        (["llava.finetune", "--executor", "nothing"], "executor nothing: no such kind or profile"),
        (["llava.finetune", "executor=slurm"], "the executor is chosen by a flag: --executor slurm"),
        (["llava.finetune", "excutor.env.A=1"], "excutor.env.A: no such field (did you mean executor.env.A?)"),
        (["llava.finetune", "executor.env.A"], "executor.env.A: expected key=value"),
        (["llava.finetune", "executor.grace_seconds=x"], "executor.grace_seconds='x': expected a number"),
        (["llava.finetune", "--executor.env.A=1"], "an override has no dashes: executor.env.A=1"),
    ],
)
def test_the_command_refuses_in_one_line(words, message, capsys, folder):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and message in printed.err
    assert printed.err.count("\n") == 1
    assert not list((folder / "project").iterdir())


def test_numbers_that_should_be_texts(folder):
    Path("executors.toml").write_text('[a]\nkind = "slurm"\ntime = 30\n\n[b]\nkind = "slurm"\nmemory = true\n')
    with pytest.raises(UserError) as caught:
        find_executor("a")
    assert str(caught.value).startswith("executors.toml, line 3: [a] time=30: expected a time as Slurm writes it")
    assert str(caught.value).endswith(': put it in quotes, time = "30"')
    with pytest.raises(UserError, match=r"line 7: \[b\] memory=True: expected an amount of memory[^:]*$"):
        find_executor("b")


def test_user_without_a_home_in_the_environment(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert profile_files()[0] == home / ".config" / "nemo-run" / "executors.toml"
