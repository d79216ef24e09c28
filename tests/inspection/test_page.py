"""The HTML page, as text and in a real browser."""

import dataclasses
import html.parser
import json
import re
import shutil
import subprocess

import pytest

from neva_recipes import gpt, llava
from neva_recipes.config import COMMAND_LINE, set_field, value_from
from neva_recipes.inspection import inspect_recipe
from neva_recipes.inspection.page import inspection_to_html
from neva_recipes.inspection.tree import recipe_rows
from neva_recipes.plan import Finding

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome here")

HOSTILE = "<script>document.title='taken'</script>\"'&amp;</pre></style>--><img src=x onerror=alert(1)>ü"

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Reads a page as a browser would, and notes what a browser would act on."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def large():
    """64 GPUs, in two pipeline stages."""
    recipe = llava.finetune()
    with value_from(COMMAND_LINE):
        for path, text in {
            "trainer.num_nodes": "8",
            "parallel.tensor_model_parallel_size": "4",
            "parallel.sequence_parallel": "true",
            "parallel.pipeline_model_parallel_size": "2",
            "data.micro_batch_size": "2",
        }.items():
            set_field(recipe, path, text)
    return recipe


def hostile():
    """Text of every kind that could be taken for markup: values, findings, and the path in the script."""
    recipe = llava.finetune("tiny")
    with value_from(COMMAND_LINE):
        set_field(recipe, "data.data_path", HOSTILE)
    recipe.data.image_folder = HOSTILE
    recipe.logging.wandb_project = "w" * 3000
    inspection = inspect_recipe(recipe, runs_dir="<b>runs & 'more'</b>", name="run")
    finding = Finding("invented", "warning", HOSTILE, {"data.data_path": HOSTILE})
    return dataclasses.replace(
        inspection, plan=dataclasses.replace(inspection.plan, findings=(*inspection.plan.findings, finding))
    )


def test_the_page_stands_by_itself():
    page = Page(inspection_to_html(inspect_recipe(large(), name="run")))
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    assert not {"src", "href", "srcset", "action"} & {name for name, _ in page.attributes}
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "url(" not in "".join(page.texts) and "@import" not in "".join(page.texts)


def test_everything_is_on_it():
    inspection = inspect_recipe(large(), gpu="h100-80g", name="run")
    page = Page(inspection_to_html(inspection))
    titles = [value for name, value in page.attributes if name == "title"]
    assert [int(re.match(r"rank (\d+):", title)[1]) for title in titles if title.startswith("rank")] == list(range(64))
    # Megatron-Core's order: tensor group, then data, then pipeline.
    assert "rank 45: node 5, stage 1, replica 3, context part 0, tensor part 1" in titles
    assert [title for title in titles if title.startswith("layer 1")][:2] == ["layer 1: stage 0", "layer 10: stage 0"]
    assert {"layer 15: stage 0", "layer 16: stage 1", "vision tower: stage 0", "output: stage 1"} <= set(titles)
    text = "\n".join(page.texts)
    for row in recipe_rows(inspection.recipe):
        assert row.name in page.texts or f"{row.name} ({row.value})" in page.texts
        assert row.value in text
    for finding in inspection.plan.findings:
        assert finding.line() in page.texts
    assert "6,738,415,616" in page.texts and "command line, was 4" in page.texts


def test_bars_are_as_long_as_the_memory():
    inspection = inspect_recipe(large(), gpu="a100-40g", name="run")
    page = Page(inspection_to_html(inspection))
    styles = [value for name, value in page.attributes if name == "style"]
    widths = [float(value[len("width:") : -1]) for value in styles if value.startswith("width:")]
    limits = [float(value[len("left:") : -1]) for value in styles if value.startswith("left:")]
    expected = [count / 2**30 / 39.4 for memory in inspection.plan.memory for count in memory.bytes.values()]
    assert [width / limits[0] for width in widths] == pytest.approx(expected, abs=2e-4)


def test_hostile_text_stays_text():
    inspection = hostile()
    page = Page(inspection_to_html(inspection))
    assert not {"script", "img"} & set(page.tags)
    text = "".join(page.texts)
    assert text.count(HOSTILE) >= 4
    assert inspection.script in text


def test_without_a_layout_there_is_still_a_page():
    recipe = large()
    recipe.parallel.tensor_model_parallel_size = 3
    text = inspection_to_html(inspect_recipe(recipe, name="run"))
    page = Page(text)
    assert "Layout" not in page.texts and "None, since it would not be started: see Findings." in page.texts
    assert "finding error" in text


def test_of_huge_jobs_the_first_replicas_are_drawn():
    recipe = gpt.pretrain()
    recipe.trainer.num_nodes, recipe.data.global_batch_size = 512, 4096 * 4
    recipe.data.micro_batch_size = 1
    text = inspection_to_html(inspect_recipe(recipe, name="run"))
    drawn = len(re.findall('class="rank(?: odd)?"', text))
    assert 0 < drawn <= 1024 and "replicas like these" in text


def measured(text, width, tmp_path):
    """Return what the browser says of the page at a width: how wide it is, which elements stick out, what it drew."""
    probe = """<script>addEventListener("load", () => {
      const boxes = [...document.querySelectorAll("body *")];
      const out = boxes.filter(box => box.getBoundingClientRect().right > innerWidth + 0.5);
      const ranks = [...document.querySelectorAll(".rank")].filter(box => box.getBoundingClientRect().width > 10);
      const small = boxes.filter(box => box.textContent.trim() && parseFloat(getComputedStyle(box).fontSize) < 12);
      const answer = {
        inner: innerWidth, scroll: document.documentElement.scrollWidth, out: out.length, title: document.title,
        ranks: ranks.map(box => box.textContent), small: small.length,
      };
      document.body.innerHTML = "<pre id=answer></pre>";
      document.getElementById("answer").textContent = "ANSWER" + JSON.stringify(answer) + "ANSWER";
    });</script>"""
    file = tmp_path / "page.html"
    file.write_text(text.replace("</body>", f"{probe}</body>"))
    # A window is never narrower than 500 pixels, a frame may be.
    copy = "copy.textContent = frames[0].document.body.textContent"
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"""<body style="margin:0"><iframe src="page.html" style="border:0;width:{width}px;height:2000px"></iframe>
        <pre id="copy"></pre><script>addEventListener("load", () => {{ {copy}; }});</script></body>"""
    )
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"),
            # Containers have little shared memory, and nothing is to be asked for from elsewhere.
            *("--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"),
            *(f"--window-size={max(width, 500)},2000", "--dump-dom", frame.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = re.search(r"ANSWER(.*)ANSWER", html.unescape(done.stdout))
    assert found, done.stderr
    return json.loads(found[1])


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("make", [lambda: inspect_recipe(large(), name="run"), hostile], ids=["64-gpus", "hostile"])
def test_in_a_browser_nothing_sticks_out(make, width, tmp_path):
    inspection = make()
    found = measured(inspection_to_html(inspection), width, tmp_path)
    assert found["inner"] == width
    assert found["scroll"] <= width and (found["out"], found["small"]) == (0, 0)
    assert found["title"] == f"{inspection.plan.recipe.name}: dry run"
    assert found["ranks"] == [str(rank) for rank in range(inspection.plan.layout.world_size)]


@needs_browser
def test_the_measurement_sees_what_sticks_out(tmp_path):
    text = inspection_to_html(inspect_recipe(gpt.pretrain("tiny"), name="run"))
    found = measured(text.replace("<h1>", '<h1 style="width:900px;font-size:9px">'), 390, tmp_path)
    assert found["scroll"] > 390 and (found["out"], found["small"]) == (1, 1)
