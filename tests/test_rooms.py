"""Folders as rooms: nobody reaches into a private module of another one, and no modules import each other round."""

import ast
import functools
import graphlib
import re

import pytest

from tests.test_architecture import ROOT, imported_modules, module_name

PACKAGES = ("neva_recipes", "executors", "neva_model")

LAYOUT = [
    *("recipe.yaml", "plan.json", "job.json", "launch.sh", "state.json", "failure.json", "joined.log", "metrics.csv"),
    *("launcher.log", "evaluation.json", "predictions.jsonl", "evaluations", "data_cache"),
]

MOST_FILES, MOST_FILES_ELSEWHERE = 15, 16
"""Python files in a folder of `executors`, and in one of the other packages; a newcomer can look over so many names."""


def modules_of(root, packages=PACKAGES):
    return {module_name(path, root): path for package in packages for path in sorted((root / package).rglob("*.py"))}


def imports_of(root, packages=PACKAGES):
    """Return the modules of ours that each module imports, inside functions and for annotations too."""
    modules = modules_of(root, packages)
    found = {}
    for name, path in modules.items():
        named = imported_modules(path, root)
        homes = {module if module in modules else module.rpartition(".")[0] for module in named}
        found[name] = {home for home in homes if home in modules and home != name}
    return found


def circle_of(root):
    """Return the modules of a circle of imports; none if there is no circle."""
    try:
        graphlib.TopologicalSorter(imports_of(root)).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def reached_into(root, packages):
    """Return `file: module` for every import of a private module, or private name, from outside of its folder."""
    wrong = []
    for path in (path for package in packages for path in sorted((root / package).rglob("*.py"))):
        folder = ".".join(path.relative_to(root).parts[:-1])
        for module in imported_modules(path, root):
            parts = module.split(".")
            private = next((place for place, part in enumerate(parts) if _is_private(part)), None)
            if parts[0] not in PACKAGES or private is None:
                continue
            home = ".".join(parts[:private])
            if home != folder and not folder.startswith(f"{home}."):
                wrong.append(f"{path.relative_to(root)}: {module}")
    return wrong


def _is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_no_circles():
    assert circle_of(ROOT) == []


def test_no_private_module_is_imported_from_outside_of_its_folder():
    assert reached_into(ROOT, [*PACKAGES, "tests", "benchmarks"]) == []


def test_no_test_imports_a_conftest():
    """A fixture or helper that several folders need has a module of its own."""
    found = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "tests").rglob("*.py")
        for module in imported_modules(path, ROOT)
        if "conftest" in module.split(".")
    ]
    assert found == []


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_can_be_looked_over(package):
    most = MOST_FILES if package == "executors" else MOST_FILES_ELSEWHERE
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    sizes = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: size for folder, size in sizes.items() if size > most} == {}


RUN_DIRECTORY = "neva_recipes/run_directory"

NAMES_ON_DISK = {
    **dict.fromkeys(LAYOUT, f"{RUN_DIRECTORY}/layout.py"),
    "pipeline.json": f"{RUN_DIRECTORY}/stages.py",
    "tool.json": f"{RUN_DIRECTORY}/stages.py",
    "checkpoint.json": f"{RUN_DIRECTORY}/names.py",
}
"""Names of files and folders of a run directory, each with the module that spells it for all others."""

WRITTEN_ONCE = {
    '".lock"': f"{RUN_DIRECTORY}/layout.py",
    'f"step-': f"{RUN_DIRECTORY}/names.py",
    'r"step-': f"{RUN_DIRECTORY}/names.py",
    "EX_TEMPFAIL": f"{RUN_DIRECTORY}/exit_codes.py",
    "IGNORE_INDEX = ": "neva_recipes/prompts/encoding.py",
    "IMAGE_TOKEN_INDEX = ": "neva_recipes/prompts/encoding.py",
}
"""Texts of the code that stand in one file: exit codes and labels that several folders share."""


@functools.cache
def sources_of(root):
    return {str(path.relative_to(root)): path.read_text() for path in modules_of(root).values()}


@functools.cache
def texts_of(source):
    """Return the texts in a module that are no docstrings."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings)
    return [node.value for node in constants if isinstance(node.value, str)]


def spells(source, name):
    """Return whether a module spells a name on disk: by itself, in a path, or in a line of shell.

    A message may speak of "state.json" in its words.
    """
    return any(text == name or re.search(rf"/\.?{re.escape(name)}", text) for text in texts_of(source))


@pytest.mark.parametrize("name", NAMES_ON_DISK)
def test_a_name_on_disk_is_spelt_once(name):
    assert [file for file, source in sources_of(ROOT).items() if spells(source, name)] == [NAMES_ON_DISK[name]]


@pytest.mark.parametrize(
    ("source", "is_spelt"),
    [
        ('path = run / "job.json"', True),
        ("""lines = ['if [ ! -e "$run/job.json" ]; then']""", True),
        ("""line = f'mv {run}/.job.json.new there'""", True),
        ('error = f"job.json cannot be read: {error}"', False),
        ('"""What RUN/job.json holds."""', False),
        ('line = f"$run/{JOB_FILE}"', False),
    ],
)
def test_a_name_that_is_spelt_is_found(source, is_spelt):
    assert spells(source, "job.json") == is_spelt


@pytest.mark.parametrize("text", WRITTEN_ONCE)
def test_a_fact_is_written_once(text):
    assert [file for file, source in sources_of(ROOT).items() if text in source] == [WRITTEN_ONCE[text]]


def state_lists(source):
    """Return the lines of lists that hold `queued` and `running`, but for those of a `Literal`."""
    tree = ast.parse(source)
    of_types = {id(node.slice) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    lists = (node for node in ast.walk(tree) if isinstance(node, ast.Tuple | ast.List | ast.Set))
    values = {node: {getattr(item, "value", None) for item in node.elts} for node in lists if id(node) not in of_types}
    return [
        node.lineno for node, held in values.items() if {"queued", "running"} <= {v for v in held if type(v) is str}
    ]


def bare_exit_codes(source):
    """Return the lines that give the exit code of a user's mistake, or of a cancelled run, as a number."""
    found = []
    for node in ast.walk(ast.parse(source)):
        is_code = isinstance(node, ast.Assign) and bool(_CODE.search(ast.unparse(node.targets[0])))
        given = [node.value] if is_code or isinstance(node, ast.Return) else []
        given += [word.value for word in node.keywords if word.arg == "exit_code"] if isinstance(node, ast.Call) else []
        given += node.args if isinstance(node, ast.Call) and ast.unparse(node.func) in _EXITS else []
        given += [branch for value in given if isinstance(value, ast.IfExp) for branch in (value.body, value.orelse)]
        found += [node.lineno for value in given if repr(getattr(value, "value", None)) in ("2", "130")]
    return sorted(found)


_CODE = re.compile("code|exit|error|mistake", re.IGNORECASE)
_EXITS = ("SystemExit", "sys.exit", "os._exit")
_WITH_EXIT_CODES = ("executors/", "neva_recipes/cli/", "neva_model/worker.py", "neva_model/tool.py")


def test_states_of_a_run_are_listed_in_one_place():
    found = [file for file, source in sources_of(ROOT).items() if state_lists(source)]
    assert found == [f"{RUN_DIRECTORY}/state.py"]


def test_exit_codes_have_names():
    sources = {file: source for file, source in sources_of(ROOT).items() if file.startswith(_WITH_EXIT_CODES)}
    assert len(sources) > 50
    assert {file: lines for file, source in sources.items() if (lines := bare_exit_codes(source))} == {}


def test_a_state_list_and_a_bare_exit_code_are_found():
    assert state_lists('A = ("created", "queued", "running")\nB = Literal["queued", "running"]\nC = ["running"]') == [1]
    lines = ["return 2 if wrong else 0", "State(exit_code=130)", "raise SystemExit(2)", "code = 2", "return 20", "f(2)"]
    source = "def f():\n" + "".join(f"    {line}\n" for line in lines)
    assert bare_exit_codes(source) == [2, 3, 4, 5]


def test_exit_codes_of_signals_are_counted_in_one_place():
    sources = sources_of(ROOT)
    counting = [file for file, source in sources.items() if re.search(r"\b128 [-+] ", source)]
    # The checks of executors have their own figure to hold against.
    assert sorted(counting) == ["executors/conformance/checks.py", "neva_recipes/run_directory/exit_codes.py"]


NAMED_BY_DIRECTORY = re.compile(r"(?<![-\w])run \{[\w.]+\.name\}")


def test_messages_name_a_run_by_its_title():
    """By the name of its directory alone, one reads of run 1 or of run finetune, whichever pipeline that is of."""
    assert NAMED_BY_DIRECTORY.search('f"run {job.run_dir.name} cannot be started"')
    assert [file for file, source in sources_of(ROOT).items() if NAMED_BY_DIRECTORY.search(source)] == []


@pytest.mark.parametrize(
    "sources",
    [
        {"a": "import executors.b", "b": "from executors.a import x"},
        {
            "a": "from executors import b",
            "b": "def f():\n    from executors import c",
            "c": "from executors.a import x",
        },
        {"a": "if TYPE_CHECKING:\n    from executors.b import B", "b": "import executors.a"},
    ],
)
def test_a_circle_is_found(tmp_path, sources):
    (tmp_path / "executors").mkdir()
    for name, source in sources.items():
        (tmp_path / "executors" / f"{name}.py").write_text(source)
    assert {*circle_of(tmp_path)} == {f"executors.{name}" for name in sources}


@pytest.mark.parametrize(
    ("file", "source", "is_wrong"),
    [
        ("tests/test_a.py", "from executors.slurm._table import x", True),
        ("executors/docker/a.py", "from executors.slurm import _table", True),
        ("executors/a.py", "from executors.slurm.cluster import _ask", True),
        ("executors/slurm/a.py", "from executors.slurm._table import x", False),
        ("executors/slurm/deep/a.py", "from executors.slurm._table import x", False),
        ("tests/test_a.py", "from torch._C import x\nfrom executors.slurm.cluster import ask", False),
    ],
)
def test_reaching_into_a_folder_is_found(tmp_path, file, source, is_wrong):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source)
    assert [line.partition(":")[0] for line in reached_into(tmp_path, ["executors", "tests"])] == [file] * is_wrong
