"""The style of pages about data: for light and dark, wide and narrow, and without network access."""

from collections.abc import Iterable

from neva_recipes.html import Element, document, element

__all__ = ["page_of"]

_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #5b6470; --line: #d8dde3; --bar: #2f6fb5;
  --error: #b3261e; --warning: #8a5a00; --empty: #e7eaee; --learnt: #14532d; --learnt-ground: #c9efd6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --card: #1d2126; --ink: #e6e9ed; --soft: #9aa4b0; --line: #353c45; --bar: #5d9be0;
    --error: #ff8a80; --warning: #f0c060; --empty: #2c323a; --learnt: #c8f5d8; --learnt-ground: #1c4a30;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 24px; max-width: 1232px; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 16px 0 4px; }
p { margin: 0 0 8px; }
.soft { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px; margin: 16px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 16px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 18px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 8px 32px; }
.bin { display: grid; grid-template-columns: 13ch 1fr 9ch; gap: 8px; font-variant-numeric: tabular-nums; }
.bin span:first-child, .bin span:last-child { text-align: right; font-size: 13px; }
.bar { background: var(--empty); border-radius: 3px; height: 14px; align-self: center; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--bar); }
.kind { border-left: 4px solid var(--warning); padding: 2px 0 2px 12px; margin: 0 0 16px; }
.kind.error { border-color: var(--error); }
.kind b { color: var(--warning); } .kind.error b { color: var(--error); }
.kind ul { margin: 4px 0 0; padding-left: 20px; }
summary { cursor: pointer; }
pre { font: 13px/1.6 ui-monospace, "SF Mono", Menlo, "Liberation Mono", monospace; white-space: pre-wrap; margin: 0; }
mark { background: var(--learnt-ground); color: var(--learnt); border-radius: 2px; }
.sample { display: grid; grid-template-columns: minmax(0, 320px) minmax(0, 1fr); gap: 20px; }
.sample.alone { grid-template-columns: minmax(0, 1fr); }
.sample img { max-width: 100%; max-height: 360px; border-radius: 6px; border: 1px solid var(--line); }
@media (max-width: 700px) {
  body { padding: 12px; }
  section { padding: 12px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; }
  .sample { grid-template-columns: minmax(0, 1fr); }
}
"""


def page_of(title: str, below: str, content: Iterable[Element]) -> str:
    """Return a page.

    Args:
        title: Its title.
        below: What stands below the title.
        content: Everything else.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", _STYLE),
    )
    body = element("body", element("h1", title), element("p", below, class_="soft"), *content)
    return document(element("html", head, body, lang="en"))
