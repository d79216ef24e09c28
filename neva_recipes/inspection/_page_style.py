"""The style of the page of a recipe: for light and dark, wide and narrow, and without network access."""

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #5b6470; --line: #d8dde3;
  --given: #8a5a00; --given-ground: #fff4d6; --error: #b3261e; --warning: #8a5a00; --empty: #e7eaee;
  --s0: #2f6fb5; --s1: #b5562f; --s2: #2f8f5b; --s3: #8a4fb0; --s4: #a38200;
  --s5: #1f8a94; --s6: #b83a72; --s7: #5d6b7a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --card: #1d2126; --ink: #e6e9ed; --soft: #9aa4b0; --line: #353c45;
    --given: #f0c060; --given-ground: #3a2f14; --error: #ff8a80; --warning: #f0c060; --empty: #2c323a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 24px; max-width: 1232px; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 0; }
p { margin: 0 0 8px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px; margin: 16px 0; }
.soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 16px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 20px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 0 0 12px; }
dt { color: var(--soft); }
dd { margin: 0; }
.strip { display: flex; flex-wrap: wrap; gap: 3px; margin: 4px 0 16px; }
.strip span { min-width: 20px; padding: 1px 5px; border-radius: 3px; color: #fff; font-size: 12px; text-align: center; }
.stage { border-left: 5px solid; padding: 2px 0 2px 12px; margin: 0 0 16px; }
.holds { margin: 2px 0 8px; }
.replicas { display: flex; flex-wrap: wrap; gap: 8px; }
.replica { border: 1px solid var(--line); border-radius: 6px; padding: 4px 6px 6px; max-width: 100%; }
.replica small { display: block; color: var(--soft); }
.ranks { display: flex; flex-wrap: wrap; gap: 3px; }
.rank {
  min-width: 26px; padding: 1px 3px; border-radius: 3px; font-size: 12px; text-align: center;
  border: 1px solid var(--line); font-variant-numeric: tabular-nums;
}
.rank.odd { background: var(--empty); }
.k0 { border-color: var(--s0); } .k1 { border-color: var(--s1); } .k2 { border-color: var(--s2); }
.k3 { border-color: var(--s3); } .k4 { border-color: var(--s4); } .k5 { border-color: var(--s5); }
.k6 { border-color: var(--s6); } .k7 { border-color: var(--s7); }
.c0 { background: var(--s0); } .c1 { background: var(--s1); } .c2 { background: var(--s2); }
.c3 { background: var(--s3); } .c4 { background: var(--s4); } .c5 { background: var(--s5); }
.c6 { background: var(--s6); } .c7 { background: var(--s7); }
.memory { margin: 0 0 20px; }
.head { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 16px; }
.scale { position: relative; margin: 6px 0 3px; }
.bar { display: flex; height: 22px; background: var(--empty); border-radius: 4px; overflow: hidden; }
.limit { position: absolute; top: -3px; bottom: -3px; width: 3px; margin-left: -2px; background: var(--error); }
.limit-label { color: var(--error); font-size: 12px; margin: 0 0 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; font-variant-numeric: tabular-nums; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.over { color: var(--error); font-weight: 600; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 20px 3px 0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
td:last-child, th:last-child { padding-right: 0; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
.finding { border-left: 4px solid var(--soft); padding: 2px 0 2px 12px; margin: 0 0 12px; }
.finding.error { border-color: var(--error); } .finding.warning { border-color: var(--warning); }
.finding.error b { color: var(--error); } .finding.warning b { color: var(--warning); }
code, pre, .tree { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, "Liberation Mono", monospace; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: 2px 0 6px; }
.inside { margin: 8px 0 16px; }
details details { margin-left: 14px; }
summary { cursor: pointer; font-weight: 600; }
.row {
  display: grid; grid-template-columns: minmax(0, 40ch) minmax(0, 1fr) minmax(0, 34ch); gap: 0 16px; padding: 1px 4px;
}
.row .default { color: var(--soft); }
.row.given { background: var(--given-ground); }
.row.given .source { color: var(--given); }
@media (max-width: 700px) {
  body { padding: 12px; }
  section { padding: 12px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 8px; }
  th, td { padding-right: 12px; font-size: 13px; }
  .row { grid-template-columns: minmax(0, 1fr); padding: 4px; border-bottom: 1px solid var(--line); }
  .row .value::before { content: "= "; color: var(--soft); }
  .row .source { color: var(--soft); }
  details details { margin-left: 6px; }
}
"""
