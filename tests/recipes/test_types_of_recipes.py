"""Type checkers know the fields of a recipe: they accept what is right in a recipe file, and find each mistake."""

import json
import re
import subprocess
import sys
import sysconfig
import venv
from dataclasses import fields
from pathlib import Path

import pytest

from neva_recipes.config import OptimConfig

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"), re.DOTALL)

GOOD = '''
"""What users write."""

import copy
from pathlib import Path

from executors import DockerExecutor, LocalExecutor, run
from neva_recipes import gpt, llava, neva, parts
from neva_recipes.config import (
    Draft, LlavaDataConfig, LlavaRecipe, OptimConfig, Recipe, build, config, load_recipe, recipe_to_yaml, set_field,
)
from neva_recipes.pipeline import Evaluate, Pipeline, Stage


def common(recipe: Draft[Recipe], lr: float = 1e-4) -> None:
    recipe.optim.lr = lr
    recipe.optim.lr_decay_steps = None
    recipe.optim.weight_decay = 0
    recipe.data.data_path = "a.json"
    recipe.data.data_path = ["a.json", "b.json"]
    recipe.data.data_path = Path("a.json")
    recipe.data.data_path = [Path("a.json"), Path("b.json")]
    recipe.data.data_path = None
    recipe.data.sequence_length *= 2
    recipe.model.recompute_modules = ["mlp", "layernorm"]


def images(size: llava.LlavaSize = "7b") -> Draft[Recipe]:
    recipe = llava.finetune(size)
    common(recipe)
    recipe.model.vision = parts.clip_vit_large(image_size=224)
    recipe.model.vision.vision_select_layer = -1
    recipe.model.projector.from_pretrained = Path("runs") / "first"
    recipe.data.image_folder = Path("images")
    recipe.data.image_aspect_ratio = "pad"
    return recipe


def text() -> Draft[Recipe]:
    recipe = gpt.pretrain("tiny")
    recipe.optim = config(OptimConfig, lr=3e-4)
    recipe.model.vision, recipe.model.projector = parts.clip_tiny(), parts.projector("linear")
    recipe.data = llava.pretrain("tiny").data
    return recipe


def place() -> Draft[DockerExecutor]:
    executor = config(DockerExecutor, env={"A": "1"})
    executor.gpu = "a100-40g"
    return executor


def stages() -> Pipeline:
    first = Stage("first", neva.pretrain())
    second = neva.finetune()
    second.model.projector.from_pretrained = first.output
    last = Stage("second", second)
    last.work.optim.lr = 1e-5
    return Pipeline("mine", first >> last >> Stage("answers", config(Evaluate, model=last.output, data=Path("q.json"))))


mine = copy.deepcopy(images())
mine.data = config(LlavaDataConfig, data_path=Path("a.json"))
set_field(mine, "optim.lr", "1e-5")
rate: float = build(mine).optim.lr
saved: str = recipe_to_yaml(load_recipe("recipe.yaml"))
other: Draft[LlavaRecipe] = llava.pretrain("tiny")
run(mine, LocalExecutor()).wait()
'''

BAD = """
from executors import DockerExecutor, LocalExecutor, run
from neva_recipes import gpt, llava, parts
from neva_recipes.config import Draft, OptimConfig, Recipe, VisionConfig, build, config
from neva_recipes.pipeline import Evaluate


def mine() -> Draft[Recipe]:
    recipe = llava.finetune()
    recipe.optim.lr = "fast"  # wrong
    recipe.optim.learning_rate = 1  # wrong
    recipe.lr = 1e-4  # wrong
    print(recipe.optim.learning_rate)  # wrong
    recipe.data.micro_batch_size = 0.5  # wrong
    recipe.data.image_aspect_ratio = "pda"  # wrong
    recipe.data.data_path = 3  # wrong
    recipe.data.data_path = ["a.json", 3]  # wrong
    recipe.data.data_path.upper()  # wrong
    recipe.data.sequence_length = None  # wrong
    recipe.model.vision = parts.projector("linear")  # wrong
    recipe.model.vision = parts.clip_vit_large(image_size=225)  # wrong
    recipe.model.projector.from_pretrained = 1  # wrong
    recipe.model.recompute_modules = ["mlps"]  # wrong
    recipe.model.language = parts.llama("8b")  # wrong
    recipe.model.language.freeze = "true"  # wrong
    build(recipe).optim.momentum  # wrong
    run(recipe.optim, LocalExecutor())  # wrong
    return recipe.model  # wrong


def more(recipe: Draft[Recipe]) -> Draft[OptimConfig]:
    recipe.data.image_folder = "images"  # wrong
    recipe.model.vision.freeze = True  # wrong
    llava.finetune("8b")  # wrong
    config(VisionConfig, image_size="large")  # wrong
    config(VisionConfig, image_sizes=336)  # wrong
    config(VisionConfig, 336)  # wrong
    config(Evaluate, model="run", data=1)  # wrong
    config(DockerExecutor).images = "a"  # wrong
    return config(VisionConfig)  # wrong
"""

OLD = """
import fiddle as fdl  # type: ignore[import-untyped]

from executors import LocalExecutor, run
from neva_recipes import llava
from neva_recipes.config import Recipe, build


def mine(size: llava.LlavaSize = "7b") -> fdl.Config[Recipe]:
    recipe = llava.finetune(size)
    recipe.optim.lr = 1e-5
    return recipe  # wrong to pyright


run(mine(), LocalExecutor())  # wrong to pyright
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of recipe files beside an environment in which the project is installed."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "good.py").write_text(GOOD)
    (folder / "bad.py").write_text(BAD)
    (folder / "old.py").write_text(OLD)
    for number, example in enumerate(EXAMPLES):
        (folder / f"example_{number}.py").write_text(example)
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment)
    packages = sysconfig.get_path("purelib", vars={"base": str(environment)})
    (Path(packages) / "installed.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    return folder, environment / "bin" / "python"


def mistakes(report, folder):
    """Return the lines with errors, by file; `report` has a file and a line, from 1, of each."""
    return {
        file.name: sorted({line for place, line in report if (folder / place).name == file.name})
        for file in sorted(folder.glob("*.py"))
    }


def expected(folder, checker):
    """Return the lines of each file that the file calls wrong."""
    marks = ("# wrong", f"# wrong to {checker}")
    return {
        file.name: [n for n, line in enumerate(file.read_text().splitlines(), start=1) if line.endswith(marks)]
        for file in sorted(folder.glob("*.py"))
    }


def output_of(command, folder):
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=folder, capture_output=True, text=True, check=False, timeout=600
    ).stdout


@pytest.mark.slow
def test_mypy_finds_each_mistake_in_a_recipe_file(files, tmp_path):
    folder, python = files
    said = output_of(
        ["mypy", "--strict", "--no-error-summary", "--cache-dir", tmp_path, "--python-executable", python, "."], folder
    )
    report = [(file, int(line)) for file, line in re.findall(r"^(.*?):(\d+): error: ", said, re.MULTILINE)]
    assert mistakes(report, folder) == expected(folder, "mypy"), said


@pytest.mark.slow
def test_pyright_finds_each_mistake_in_a_recipe_file(files):
    folder, python = files
    said = output_of(["pyright", "--outputjson", "--pythonpath", python, folder], folder)
    found = [entry for entry in json.loads(said)["generalDiagnostics"] if entry["severity"] == "error"]
    report = [(entry["file"], entry["range"]["start"]["line"] + 1) for entry in found]
    assert mistakes(report, folder) == expected(folder, "pyright"), said


@pytest.mark.slow
def test_an_editor_offers_the_fields_of_a_group(files):
    """Asks pyright's language server, as an editor does, what may follow `recipe.optim.`."""
    folder, python = files
    text = "from neva_recipes import llava\n\nllava.finetune().optim."
    document = (folder / "typed_now.py").as_uri()
    with subprocess.Popen(
        [sys.executable, "-m", "pyright.langserver", "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        send(server, "initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": {}}, identity=1)
        answer_to(server, 1)
        send(server, "initialized", {})
        settings = {"python": {"pythonPath": str(python)}}
        send(server, "workspace/didChangeConfiguration", {"settings": settings})
        opened = {"uri": document, "languageId": "python", "version": 1, "text": text}
        send(server, "textDocument/didOpen", {"textDocument": opened})
        place = {"line": 2, "character": len("llava.finetune().optim.")}
        send(server, "textDocument/completion", {"textDocument": {"uri": document}, "position": place}, identity=2)
        offered = answer_to(server, 2)
        server.kill()
    assert {field.name for field in fields(OptimConfig)} <= {item["label"] for item in offered["items"]}


def send(server, method, parameters, identity=None):
    message = {"jsonrpc": "2.0", "method": method, "params": parameters}
    content = json.dumps(message if identity is None else message | {"id": identity}).encode()
    server.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
    server.stdin.flush()


def answer_to(server, identity):
    """Return the result of a request; other messages of the server are passed over."""
    while True:
        length = server.stdout.readline()
        while server.stdout.readline() not in (b"\r\n", b""):
            pass
        message = json.loads(server.stdout.read(int(length.removeprefix(b"Content-Length: "))))
        if message.get("id") == identity and "method" not in message:
            return message["result"]
