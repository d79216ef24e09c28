"""The arrows between the packages, read from their imports, and the size of their files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Package: the packages of ours it may import. The longest name that fits a module counts.
ARROWS = {
    "neva_recipes.secrets": {"neva_recipes.secrets", "neva_recipes.secrets._secret_names"},
    # The door for what is printed: whoever prints may use it.
    "neva_recipes.terminal": {"neva_recipes.terminal"},
    "neva_recipes.table": {"neva_recipes.table", "neva_recipes.terminal"},
    "neva_recipes.interruption": {"neva_recipes.interruption", "neva_recipes.terminal"},
    # The contract between whoever starts a run, its ranks, and whoever reads it later.
    "neva_recipes.run_directory": {"neva_recipes.run_directory", "neva_recipes.terminal"},
    "neva_recipes.config": {
        "neva_recipes.config",
        "neva_recipes.run_directory",
        "neva_recipes.secrets",
        "neva_recipes.terminal",
    },
    # What names and digests on the disk promise, for those who write them and those who look.
    "neva_recipes.storage": {"neva_recipes.storage", "neva_recipes.config", "neva_recipes.run_directory"},
    "neva_recipes.prompts": {"neva_recipes.prompts", "neva_recipes.config"},
    # The formats of data files; packages offer further ones.
    "neva_recipes.sources": {"neva_recipes.sources", "neva_recipes.config", "neva_recipes.user_code"},
    # What a model is made of, for the plan and for the worker; packages offer families as they offer recipes.
    "neva_recipes.families": {"neva_recipes.families", "neva_recipes.config", "neva_recipes.user_code"},
    # The plan is plain arithmetic: an executor refuses by it, and the worker divides and logs by it.
    "neva_recipes.plan": {
        "neva_recipes.plan",
        "neva_recipes.prompts",
        "neva_recipes.families",
        "neva_recipes.sources",
        "neva_recipes.config",
        "neva_recipes.run_directory",
        "neva_recipes.storage",
    },
    # What tells users of mistakes in their own code, for recipes and executors alike.
    "neva_recipes.user_code": {
        "neva_recipes.user_code._unchanged",
        "neva_recipes.user_code._user_output",
        "neva_recipes.config",
        "neva_recipes.terminal",
    },
    # Tools that make tokenizers and measure them.
    "neva_recipes.tokenizers": {
        "neva_recipes.tokenizers",
        "neva_recipes.config",
        "neva_recipes.plan",
        "neva_recipes.prompts",
        "neva_recipes.sources",
        "neva_recipes.storage",
    },
    # What makes files of tokens out of text.
    "neva_recipes.token_data": {
        "neva_recipes.token_data",
        "neva_recipes.config",
        "neva_recipes.interruption",
        "neva_recipes.plan",
        "neva_recipes.sources",
        "neva_recipes.storage",
    },
    # What looks through files of conversations for those who make them.
    "neva_recipes.data_tools": {
        "neva_recipes.data_tools",
        "neva_recipes.config",
        "neva_recipes.html",
        "neva_recipes.interruption",
        "neva_recipes.plan",
        "neva_recipes.prompts",
        "neva_recipes.sources",
        "neva_recipes.storage",
        "neva_recipes.table",
        "neva_recipes.terminal",
    },
    "neva_recipes": {"neva_recipes"},
    # The two faces of the product: what people type, and what they look at before anything is started.
    "neva_recipes.cli": {"neva_recipes", "executors"},
    "neva_recipes.inspection": {"neva_recipes", "executors"},
    "executors": {
        "executors",
        "neva_recipes.config",
        "neva_recipes.interruption",
        "neva_recipes.pipeline",
        "neva_recipes.plan",
        "neva_recipes.run_directory",
        "neva_recipes.secrets",
        "neva_recipes.storage",
        "neva_recipes.sweep",
        "neva_recipes.table",
        "neva_recipes.terminal",
        "neva_recipes.user_code",
    },
    "neva_model": {
        "neva_model",
        "neva_recipes.config",
        "neva_recipes.families",
        "neva_recipes.sources",
        "neva_recipes.prompts",
        "neva_recipes.plan",
        "neva_recipes.run_directory",
        "neva_recipes.secrets",
        "neva_recipes.storage",
        "neva_recipes.tokenizers",
        "neva_recipes.interruption",
        "neva_recipes.late_libcst",
        "neva_recipes.terminal",
    },
}

# What must never be imported by a package, not even inside a function.
HEAVY = {
    "torch",
    "transformers",
    "megatron",
    "lightning",
    "transformer_engine",
    "numpy",
    "safetensors",
}
# What a light package may only import inside a function: a plan that reads no tokenizer does without.
LAZY = {"sentencepiece", "tokenizers", "google"}
LIGHT_PACKAGES = ("neva_recipes", "executors")

LONGEST_FILE, LONGEST_FILE_OF_TESTS, LONGEST_FUNCTION = 400, 500, 50


def module_name(path, root):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(tree, in_functions):
    """Yield the nodes of a module, those inside functions only if asked for."""
    for node in ast.iter_child_nodes(tree):
        if in_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from statements(node, in_functions)


def imported_modules(path, root, in_functions=True):
    """Return the modules a file imports, inside functions too if asked for; relative ones are resolved."""
    own = module_name(path, root).split(".")
    package = own if path.name == "__init__.py" else own[:-1]
    found = []
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), in_functions):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found += [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
    return found


def belongs_to(module, package):
    return module == package or module.startswith(f"{package}.")


def violations(root):
    """Return `file: module` for every import that an arrow or the ban on heavy modules forbids."""
    wrong = []
    for package in ("neva_recipes", "executors", "neva_model"):
        for path in sorted((root / package).rglob("*.py")):
            own = module_name(path, root)
            at_once = imported_modules(path, root, in_functions=False)
            allowed = ARROWS[max((name for name in ARROWS if belongs_to(own, name)), key=len)]
            for module in imported_modules(path, root):
                ours = any(belongs_to(module, name) for name in ARROWS)
                forbidden = ours and not any(belongs_to(module, name) for name in allowed)
                top = module.split(".")[0]
                heavy = package in LIGHT_PACKAGES and (top in HEAVY or (top in LAZY and module in at_once))
                if forbidden or heavy:
                    wrong.append(f"{path.relative_to(root)}: {module}")
    return wrong


def test_arrows():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("neva_recipes/config/a.py", "import executors"),
        ("neva_recipes/config/a.py", "from neva_recipes import llava"),
        ("neva_recipes/config/a.py", "from .. import llava"),
        ("neva_recipes/config/a.py", "from neva_recipes.plan import plan"),
        ("neva_recipes/plan/a.py", "from executors import LocalExecutor"),
        ("neva_recipes/cli/a.py", "def f():\n    import torch.nn"),
        ("neva_recipes/llava.py", "from neva_model.worker import main"),
        ("neva_recipes/plan/a.py", "import sentencepiece"),
        ("neva_recipes/plan/a.py", "if True:\n    from tokenizers import Tokenizer"),
        ("executors/a.py", "from neva_recipes.registry import find_recipe"),
        ("executors/a.py", "def f():\n    from lightning import Trainer"),
        ("neva_model/a.py", "import executors.local"),
        ("neva_model/a.py", "from neva_recipes import llava"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, file, source):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source)
    assert [line.partition(":")[0] for line in violations(tmp_path)] == [file]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("neva_recipes/config/a.py", "from .errors import UserError\nfrom neva_recipes.config import _history"),
        ("neva_recipes/cli/a.py", "import executors\nfrom neva_recipes.config import build"),
        ("executors/a.py", "from neva_recipes.config import build\nfrom executors.base import Executor"),
        ("neva_recipes/plan/a.py", "def f():\n    import sentencepiece"),
        ("neva_model/a.py", "import torch\nfrom neva_recipes.config import Recipe\nfrom neva_model.data import x"),
    ],
)
def test_an_allowed_import_is_not(tmp_path, file, source):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("folders", "longest"),
    [(("neva_recipes", "executors", "neva_model"), LONGEST_FILE), (("tests", "benchmarks"), LONGEST_FILE_OF_TESTS)],
)
def test_files_hold_one_idea(folders, longest):
    lengths = {path: len(path.read_text().splitlines()) for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > longest} == {}


def test_functions_can_be_read_at_a_glance():
    lengths = {
        f"{path.relative_to(ROOT)}: {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for folder in ("neva_recipes", "executors", "neva_model")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}
