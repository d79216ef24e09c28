"""Pages as a browser sees them: read strictly, and measured by Chromium where it is installed."""

import html
import html.parser
import json
import re
import shutil
import subprocess

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome here")

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
