"""Writes docs/configuration.md from conf/ and docs/metrics.md from the glossary: `make docs`. A test compares both."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from s2sr.fit.stages import Stage
from s2sr.report.glossary import GROUPS as GLOSSARY_GROUPS
from s2sr.report.glossary import METRICS

CONF = Path(__file__).resolve().parents[1] / "conf"
LINE = re.compile(r"(?P<indent> *)(?P<key>[\w\"]+):(?: +(?P<value>(?:\"[^\"]*\"|[^#\"])*?))?(?: +# *(?P<comment>.*))?")
PREAMBLE = """\
# Configuration reference

Made by `make docs` from [conf/](../conf) and the comments there. `GROUP=CHOICE` takes a file of a group, `KEY=VALUE`
sets a value, `+KEY=VALUE` adds one, `~KEY` removes one
([Hydra's grammar](https://hydra.cc/docs/advanced/override_grammar/basic/)); `python train.py --cfg job` prints what a
command line composes to.
"""
GROUPS = {
    "data": "where the observations come from",
    "psf": "the Gaussian part of the point-spread function",
    "c2f": "splats per LR pixel and axis, coarse to fine",
    "strategy": "the stages, in order; a key of a stage is `strategy.STAGE.KEY`",
    "stage": "what strategies are composed of (not a group for the command line; a strategy of your own lists them)",
    "misfit": "how residuals count",
    "logger": "the dashboard",
    "trainer": "passed to `lightning.Trainer`",
}


def keys(text: str, prefix: str) -> Iterator[tuple[str, str, str]]:
    """(key, value, comment) of every line that has a value or a comment; keys in full, from `prefix`."""
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if not match or (match["key"] == "defaults" and not match["indent"]):
            continue
        while path and path[-1][0] >= len(match["indent"]):
            path.pop()
        path.append((len(match["indent"]), match["key"].strip('"')))
        hidden = match["key"] == "_partial_" or line.startswith("_target_")
        if (match["value"] or match["comment"]) and not hidden:
            name = ".".join([prefix, *(key for _, key in path)]).lstrip(".")
            yield name, match["value"] or "", match["comment"] or ""


def composed(text: str) -> str:
    """The files that a configuration is made of, from its defaults list."""
    block = re.search(r"^defaults:\n((?: *-.*\n)*)", text, re.MULTILINE)
    names = [name for name in re.findall(r"- +(.*)", block[1]) if name != "_self_"] if block else []
    return f"Starts from {', '.join(f'`{name}`' for name in names)}.\n\n" if names else ""


def section(path: Path, title: str, prefix: str) -> str:
    text = path.read_text()
    head = re.match(r"(?:#.*\n)*", text)[0]  # type: ignore[index]
    about = " ".join(line.removeprefix("# ") for line in head.splitlines() if not line.startswith("# @"))
    target = re.search(r"^_target_: (.*)", text, re.MULTILINE)
    parts = [
        title,
        f"{about}{'' if about.endswith('.') else '.'}" if about else "",
        f"`{target[1]}`" if target else "",
        composed(text).strip(),
    ]
    rows = [f"| `{key}` | {f'`{value}`' if value else ''} | {comment} |" for key, value, comment in keys(text, prefix)]
    if rows:
        parts.append("\n".join(["| key | value | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(part for part in parts if part) + "\n"


def configuration() -> str:
    parts = [PREAMBLE]
    for name in ("train", "sweep", "download", "forecast"):
        parts.append(section(CONF / f"{name}.yaml", f"## {name}", ""))
    for group, about in GROUPS.items():
        parts.append(f"## {group}/\n\n{about[0].upper()}{about[1:]}.\n")
        if group == "stage":
            parts.append(f"```text\n{inspect.getdoc(Stage)}\n```\n")
        prefix = "" if group == "strategy" else "strategy.STAGE" if group == "stage" else group
        for path in sorted((CONF / group).glob("*.yaml")):
            parts.append(section(path, f"### {group}={path.stem}" if group != "stage" else f"### {path.stem}", prefix))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def metrics() -> str:
    """Every key of metrics.json."""
    parts = ["# Numbers\n\nMade by `make docs` from [glossary.py](../s2sr/report/glossary.py). How to read them: "]
    parts[0] += "[outputs.md](outputs.md).\n"
    for group, title in GLOSSARY_GROUPS.items():
        rows = [f"| `{key}` | {m.unit} | {m.sentence} |" for key, m in METRICS.items() if m.group == group]
        parts.append("\n".join([f"## {title}\n", "| key | unit | meaning |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    for name, text in (("configuration", configuration()), ("metrics", metrics())):
        (Path(__file__).parent / f"{name}.md").write_text(text)
