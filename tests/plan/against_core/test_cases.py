"""Every rule on what Megatron-Core can show: a recipe it refuses or runs wrongly, and a neighbour that works."""

import re
from pathlib import Path

import pytest

from neva_recipes.plan import check_recipe
from neva_recipes.plan.core_release import installed_core
from tests.plan.against_core.cases import CASES, Case
from tests.plan.against_core.core import Verdict, ask_core

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def verdicts() -> dict[int, tuple[Verdict, Verdict]]:
    """What Megatron-Core does with the wrong and the right recipe of each case, all in one launch."""
    answers = ask_core([recipe for case in CASES for recipe in (case.wrong_recipe, case.right_recipe)])
    return dict(enumerate(zip(answers[::2], answers[1::2], strict=True)))


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.code for case in CASES])
def test_the_plan_agrees_with_megatron_core(number: int, verdicts: dict[int, tuple[Verdict, Verdict]]) -> None:
    case, (wrong, right) = CASES[number], verdicts[number]
    if installed_core() in case.releases:
        assert re.search(case.reason, wrong.reason), f"{case.wrong}: {wrong.reason or 'works'}"
        assert case.code in errors(case, "wrong_recipe")
    else:
        assert wrong.works, f"{case.wrong}: {wrong.reason}"
        assert errors(case, "wrong_recipe") == []
    assert right.works, f"{case.wrong | case.right}: {right.reason}"
    assert errors(case, "right_recipe") == []


def errors(case: Case, which: str) -> list[str]:
    return [finding.code for finding in check_recipe(getattr(case, which)) if finding.severity == "error"]


def test_every_error_is_held_against_core_or_said_not_to_be() -> None:
    text = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    rules, _, held = text.partition("## Held against Megatron-Core")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "neva_recipes/plan/checks").glob("*.py"))
    errors_between_fields = {
        code for code in re.findall(r"^\| `([a-z0-9-]+)` \| error", rules, re.MULTILINE) if f'"{code}"' in source
    }
    said = set(re.findall(r"`([a-z0-9-]+)`", " ".join(re.findall(r"^\| (`.*?) \|", held, re.MULTILINE))))
    assert errors_between_fields == {case.code for case in CASES} | said
