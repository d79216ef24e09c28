"""Files of recipes and packages that print, ask, end the program or fail: one line each, and a whole document."""

import json
import re
import sys
from pathlib import Path

import pytest

from neva_recipes.cli.main import main

HEAD = "import os, subprocess, sys, warnings\nfrom neva_recipes import gpt\n"
RECIPE = '\n\ndef mine():\n    """Mine."""\n    return gpt.pretrain("tiny")\n'

# What the third line of a file does when it is imported, and what is said of it.
ENDS = [
    ("sys.exit(3)", ["line 3 ends the program by sys.exit(3)", 'below if __name__ == "__main__"']),
    ("sys.exit()", ["line 3 ends the program by sys.exit();"]),
    ("raise SystemExit('no data')", ["line 3 ends the program by sys.exit('no data')"]),
    (
        "import argparse; argparse.ArgumentParser().parse_args(['--lr', '3'])",
        ["line 3 ends the program by sys.exit(2)", "error: unrecognized arguments: --lr 3"],
    ),
    ("input('name? ')", ["line 3: RuntimeError: asks for input while it is imported"]),
    ("sys.stdin.read()", ["line 3: RuntimeError: asks for input"]),
    ("sys.stdin.buffer.read()", ["line 3: RuntimeError: asks for input"]),
    ("import getpass; getpass.getpass()", ["line 3: RuntimeError: asks for input"]),
    ("sys.stderr.close(); sys.exit(3)", ["line 3 ends the program by sys.exit(3)"]),
    ("raise StopIteration", ["line 3: StopIteration\n"]),
    ("raise subprocess.CalledProcessError(3, 'nvcc')", ["line 3: CalledProcessError: Command 'nvcc' returned"]),
    ("class Odd(Exception): pass\nraise Odd('odd')", ["line 4: Odd: odd"]),
    ("warnings.simplefilter('error'); warnings.warn('old')", ["line 3: UserWarning: old"]),
    ("os._exit(0)", ["line 3 ends the program by os._exit(0);"]),
    ("class Skipped(BaseException): pass\nraise Skipped('no GPU')", ["line 4: Skipped: no GPU"]),
    ("class Odd(Exception): __str__ = None\nraise Odd", ["line 4: Odd: its text cannot be read: TypeError"]),
    ("import asyncio; raise asyncio.CancelledError", ["line 3: CancelledError\n"]),
]

# What it does besides, and what is said of it.
NOISE = [
    ("print('hello')", "line 3 prints: hello\n"),
    ("print('one\\ntwo')", "line 3 prints: two\n"),
    ("print('not ended', end='')", "line 3 prints: not ended\n"),
    ("print('\\x1b[2J\\u202e')", "line 3 prints: \\x1b[2J\\u202e\n"),
    ("print('by its other name', file=sys.__stdout__)", "by its other name\n"),
    ("os.write(1, b'as a file\\n')", "as a file\n"),
    ("subprocess.run(['echo', 'a child'])", "a child\n"),
    ("import logging; logging.basicConfig(stream=sys.stdout); logging.error('log')", "line 3 prints: ERROR:root:log\n"),
    ("print('known', file=sys.stderr)", "known\n"),
    ("warnings.warn('old')", "line 3 warns: UserWarning: old\n"),
    ("os.chdir('/')", "changes the working directory to /: it is set back to"),
    ("sys.stdout.reconfigure(encoding='utf-8'); print(sys.stdout.fileno())", "line 3 prints: 2\n"),
    ("sys.stdout.buffer.write(b'as bytes\\n')", "line 3 prints: as bytes\n"),
    ("print('before'); sys.stdout.close()", "line 3 prints: before\n"),
    ("if (child := os.fork()) == 0: os._exit(0)\nos.waitpid(child, 0); print('parent')", "line 4 prints: parent\n"),
    ("print('set back'); sys.path.clear(); sys.setrecursionlimit(90)", "line 3 prints: set back\n"),
    ("print('closed'); sys.stderr.close()", "line 3 prints: closed\n"),
    ("import threading; t = threading.Thread(target=os._exit, args=[7]); t.start(); t.join()", "by os._exit(7)\n"),
    ("import threading; t = threading.Thread(target=int, args=['x']); t.start(); t.join()", "ends by ValueError: inv"),
    ("class Odd:\n    __class__ = property(lambda self: 1 / 0)\nodd = Odd(); print('odd')", "line 5 prints: odd\n"),
    (
        "class Odd:\n    __slots__ = ()\n    def __getattr__(self, name): 1 / 0\nprint(hash(Odd()) and 'o')",
        "prints: o\n",
    ),
    ("import atexit; atexit.register(print, 'at the end')", "at the end\n"),
]


def names(cases):
    return [case[0] for case in cases]


@pytest.mark.parametrize(("line", "said"), ENDS, ids=names(ENDS))
@pytest.mark.parametrize("words", [["list"], ["mine", "--dry-run"]], ids=["list", "run"])
def test_what_an_import_must_not_do_is_one_line(line, said, words, folder, capfd):
    (folder / "own.py").write_text(HEAD + line + RECIPE)
    assert main([*words, "--recipes", "own.py"]) == 2
    out, err = capfd.readouterr()
    answer = [line for line in err.splitlines(keepends=True) if line.startswith("error: ")]
    assert out == "" and len(answer) == 1
    assert answer[0].startswith(f"error: {folder / 'own.py'}, line ")
    for part in said:
        assert part in answer[0]
    assert "Traceback" not in err and "usage:" not in err


@pytest.mark.parametrize(("line", "said"), NOISE, ids=names(NOISE))
def test_what_an_import_prints_goes_to_stderr_with_its_place(line, said, folder, nemo_run):
    (folder / "own.py").write_text(HEAD + line + RECIPE)
    done = nemo_run("mine", "--recipes", "own.py", "--dry-run", "--format", "json", "--runs-dir", "runs", check=0)
    assert json.loads(done.stdout)["recipe"]["name"] == "mine"
    assert said in done.stderr
    for printed in done.stderr.splitlines():
        if " prints: " in printed or " warns: " in printed or " changes " in printed or " thread ends by " in printed:
            assert printed.startswith(f"note: {folder / 'own.py'}")
    assert "Traceback" not in done.stderr


def test_threads_that_go_on_printing_leave_the_document_whole(folder, nemo_run):
    ticks = (
        "import threading\n\ndef tick():\n    while not threading.Event().wait(0.001):\n        print('tick')\n\n"
        "threading.Thread(target=tick, daemon=True).start()\n"
    )
    (folder / "own.py").write_text(HEAD + ticks + RECIPE)
    done = nemo_run("mine", "--recipes", "own.py", "--dry-run", "--format", "json", check=0)
    assert json.loads(done.stdout)["recipe"]["name"] == "mine"
    assert f"note: {folder / 'own.py'}, line 7 prints: tick\n" in done.stderr


def test_a_config_that_holds_itself(folder, capfd):
    (folder / "own.py").write_text(
        HEAD + RECIPE.replace("return gpt", "made = gpt") + "    made.optim = made\n    return made\n"
    )
    assert main(["mine", "--recipes", "own.py", "optim.lr=1", "--dry-run"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: a config of Recipe holds itself") and err.count("\n") == 1


def test_a_field_that_is_not_there(folder, capfd):
    (folder / "mine.py").write_text(f"{HEAD}def mine():\n    return gpt.pretrain('tiny').optim.learning_rate\n")
    assert main(["mine", "--recipes", "mine.py", "--dry-run"]) == 2
    error = capfd.readouterr().err
    assert "line 4: AttributeError: OptimConfig has no field 'learning_rate'" in error and len(error) < 400


def test_a_field_that_is_set_and_not_there(folder, capfd):
    own = HEAD + RECIPE.replace("return gpt", "made = gpt") + "    made.optim.warmup_step = 5\n    return made\n"
    (folder / "own.py").write_text(own)
    assert main(["mine", "--recipes", "own.py", "--dry-run"]) == 2
    assert (
        "own.py, line 8: AttributeError: OptimConfig has no field 'warmup_step' (did you mean warmup_steps, "
        in capfd.readouterr().err
    )


def test_an_async_function_is_no_recipe(folder, capfd):
    (folder / "own.py").write_text(HEAD + RECIPE.replace("def mine", "async def mine"))
    assert main(["mine", "--recipes", "own.py", "--dry-run"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: own.mine is an async function") and err.count("\n") == 1


def test_a_recipe_function_too(folder, capfd):
    body = RECIPE.replace("    return", "    print('making it')\n    os.chdir('/')\n    return")
    ends = "\n\ndef ends():\n    sys.exit('no data')\n"
    (folder / "own.py").write_text(HEAD + body + ends)
    assert main(["mine", "--recipes", "own.py", "--dry-run", "--format", "json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["recipe"]["name"] == "mine"
    assert "own.py, line 7 prints: making it\n" in err and "changes the working directory to /" in err
    assert main(["ends", "--recipes", "own.py", "--dry-run"]) == 2
    out, err = capfd.readouterr()
    assert (
        out == "" and err.count("\n") == 1 and "own.py, line 13 ends the program by sys.exit('no data'); raise" in err
    )


def test_profiles_in_python(folder, capfd):
    (folder / "own.py").write_text(
        "import fiddle as fdl\nfrom executors import LocalExecutor\nfrom neva_recipes.config import config\n"
        "def box() -> fdl.Config[LocalExecutor]:\n    print('box')\n    return config(LocalExecutor)\n"
        "def ends() -> fdl.Config[LocalExecutor]:\n    exit()\n"
    )
    assert main(["executors", "--recipes", "own.py"]) == 0
    out, err = capfd.readouterr()
    assert "  box       local, from own.py\n" in out and "  ends      cannot be used:" in out
    assert "line 8 ends the program by sys.exit()" in " ".join(out.split())
    assert err == f"note: {folder / 'own.py'}, line 5 prints: box\n"


PACKAGE = {
    "bad.missing": ("nomodule_xyz:recipe", "ModuleNotFoundError: No module named 'nomodule_xyz'"),
    "bad.exit": ("exitmod:recipe", "exitmod.py, line 1 ends the program by sys.exit(5)"),
    "bad.attr": ("printmod:nosuch", "has no attribute 'nosuch'"),
    "bad.syntax": ("synmod:recipe", "synmod.py, line 1: SyntaxError"),
    "bad.value": ("not a module", "expected MODULE:NAME"),
    "bad.number": ("printmod:number", "expected a function, got a value of type int"),
    "llava.finetune": ("printmod:recipe", "the name of a built-in recipe"),
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package whose recipes and kinds of executors are all broken but one."""
    site = tmp_path / "site"
    metadata = site / "badplug-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: badplug\nVersion: 1.0\n")
    recipes = [f"{name} = {value}" for name, (value, _) in PACKAGE.items()]
    kinds = ["queue = nomodule_xyz:Q", "slowq = exitmod:Q", "slurm = printmod:Q"]
    (metadata / "entry_points.txt").write_text(
        "\n".join(["[neva_recipes.recipes]", "good = printmod:recipe", *recipes, "[neva_recipes.executors]", *kinds])
    )
    (site / "exitmod.py").write_text("import sys; sys.exit(5)\n")
    (site / "printmod.py").write_text(
        "print('NOISE')\nfrom neva_recipes import gpt\nnumber = 3\ndef recipe():\n    return gpt.pretrain('tiny')\n"
    )
    (site / "synmod.py").write_text("def (\n")
    monkeypatch.syspath_prepend(str(site))
    yield site
    for name in ("exitmod", "printmod", "synmod"):
        sys.modules.pop(name, None)


def test_broken_packages_are_named_and_harm_nothing(package, folder, capfd):
    assert main(["list"]) == 0
    out, err = capfd.readouterr()
    shown = " ".join(out.split())
    for name, (_, said) in PACKAGE.items():
        assert f" {name} cannot be used: " in shown and said in shown
    assert "NOISE" not in out and err.count("\n") == 1 and err.endswith("printmod.py, line 1 prints: NOISE\n")
    assert max(len(line) for line in out.splitlines() if str(package) not in line) <= 80
    for name, (_, said) in PACKAGE.items():
        if name != "llava.finetune":
            assert main([name, "--dry-run"]) == 2
            out, err = capfd.readouterr()
            assert out == "" and err.count("error: ") == 1 and said in err
    for words in (["good", "--dry-run"], ["llava.finetune", "--dry-run"], ["executors"], ["status"]):
        assert main(words) == 0
        out, err = capfd.readouterr()
        assert "NOISE" not in out
        if words == ["executors"]:
            shown = " ".join(out.split())
            assert (
                "queue cannot be used: " in shown and "slurm cannot be used: slurm is the name of a built-in" in shown
            )
            assert "slowq cannot be used: " in shown and "ends the program by sys.exit(5)" in shown


def test_metadata_that_cannot_be_read_hides_no_other_package(package, folder, capfd):
    worse = package / "worse-1.0.dist-info"
    worse.mkdir()
    (worse / "METADATA").write_text("Metadata-Version: 2.1\nName: worse\nVersion: 1.0\n")
    (worse / "entry_points.txt").write_text("[neva_recipes.recipes]\nno equals sign\n")
    assert main(["list"]) == 0
    out, err = capfd.readouterr()
    assert "\n  good" in out
    assert "warning: package worse: entry_points.txt cannot be read: " in err


def test_of_each_package_it_is_told_what_is_wrong_with_its_own_metadata(package, folder, capfd):
    for name, text in (("worse", b"[neva_recipes.recipes]\nno equals sign\n"), ("worst", b"[\xff]\n")):
        metadata = package / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_bytes(text)
    assert main(["list"]) == 0
    err = capfd.readouterr().err
    said = dict(re.findall(r"^warning: package (\w+): entry_points.txt (.*)$", err, re.MULTILINE))
    assert set(said) == {"worse", "worst"}
    assert "0xff" in said["worst"] and "0xff" not in said["worse"]


def test_without_docstrings(nemo_run, folder):
    plain = nemo_run("llava.finetune", "--help", check=0).stdout
    assert nemo_run("llava.finetune", "--help", env={"PYTHONOPTIMIZE": "2"}, check=0).stdout == plain
    assert nemo_run("list", env={"PYTHONOPTIMIZE": "1"}, check=0).stdout == nemo_run("list", check=0).stdout


@pytest.mark.parametrize(
    ("words", "own", "name"),
    [
        (["photos"], "", "photos"),
        (["mine.photos"], "", "mine.photos"),
        (["photos"], "    recipe.name = 'pictures'\n", "pictures"),
        (["photos", "name=gpt.pretrain"], "", "gpt.pretrain"),
        (["photos", "--name", "other"], "", "other"),
    ],
)
def test_a_run_of_an_own_recipe_is_called_as_the_recipe_was(folder, capfd, words, own, name):
    Path("mine.py").write_text(
        "from neva_recipes import llava\n\n\n"
        f"def photos():\n    recipe = llava.finetune('tiny')\n{own}    return recipe\n"
    )
    main([*words, "--recipes", "mine.py", "--dry-run", "--format", "json"])  # files are missing
    script = json.loads(capfd.readouterr().out)["script"]
    assert set(re.findall(r"/runs/([^/]+)-\d{8}-\d{6}", script)) == {name}
