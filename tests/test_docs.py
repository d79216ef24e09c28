"""What the documents name is there: paths of ours, and the headings that links go to."""

import re

import pytest

from tests.test_architecture import ROOT

DOCUMENTS = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]

FOLDERS = ("neva_recipes", "executors", "neva_model", "tests", "benchmarks", "docs")

OF_OTHERS = {
    *("FILE.py", "lab.py", "my_recipes.py", "recipe.py", "workspace.py"),
    *("convert_llama_nemo_to_hf.py", "convert_llava_nemo_to_hf.py", "preprocess_data.py"),
    "scripts/checkpoint_converters/convert_llava_nemo_to_hf.py",
    "scripts/tokenizers/add_special_tokens_to_sentencepiece.py",
    "add_special_tokens_to_sentencepiece.py",
    "convert_llama_hf_to_nemo.py",
    "megatron_change_num_partitions.py",
    "megatron_gpt_eval.py",
    "megatron_gpt_pretraining.py",
    "neva_evaluation.py",
    "neva_finetune.py",
    "neva_pretrain.py",
    "preprocess_data_for_megatron.py",
}
"""Python files that readers write, and files of NeMo and of Megatron-LM."""

PATH = re.compile(r"(?<![\w/.~$-])[A-Za-z_][\w-]*(?:/[\w*-]+)*(?:/|\.[a-z]+)?(?![\w/])")


def paths_of(text):
    """Return the words that are Python files, or begin with a folder of ours."""
    words = {word.rstrip("/") for word in PATH.findall(text) if "/" in word or word.endswith(".py")}
    return {word for word in words if word.endswith(".py") or word.partition("/")[0] in FOLDERS}


def is_there(path):
    """Return whether a path, from the root or from any folder below, exists; a word in capitals stands for any name."""
    pattern = "/".join(re.sub(r"^[A-Z]+(?=\.|$)", "*", part) for part in path.split("/"))
    if path.partition("/")[0] in FOLDERS:
        return any(ROOT.glob(pattern))
    return any(next((ROOT / folder).rglob(pattern), None) for folder in FOLDERS)


def headings_of(document):
    """Return the names that GitHub gives to the headings of a document."""
    lines = [line.lstrip("#").strip().lower() for line in document.read_text().splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", line).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_paths_that_a_document_names_exist(document):
    assert sorted(path for path in paths_of(document.read_text()) - OF_OTHERS if not is_there(path)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_links_of_a_document_lead_somewhere(document):
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        name, _, heading = link.partition("#")
        there = document.parent / name if name else document
        if "://" not in link and (not there.exists() or (heading and heading not in headings_of(there))):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize(
    ("text", "found", "is_here"),
    [
        ("`neva_recipes/plan/plan.py`", "neva_recipes/plan/plan.py", True),
        ("in (neva_recipes/config/), there", "neva_recipes/config", True),
        ("`executors/NAME/executor.py`.", "executors/NAME/executor.py", True),
        ("`families/llama.py`", "families/llama.py", True),
        ("`worker.py`", "worker.py", True),
        ("`neva_recipes/nowhere.py`", "neva_recipes/nowhere.py", False),
        ("tests/nowhere holds", "tests/nowhere", False),
        ("`families/plan.py`", "families/plan.py", False),
        ("`nowhere.py`", "nowhere.py", False),
    ],
)
def test_a_path_is_found_and_looked_for(text, found, is_here):
    assert paths_of(text) == {found}
    assert is_there(found) == is_here
