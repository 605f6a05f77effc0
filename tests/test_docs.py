"""The Markdown files are true: links, paths, programs, options and versions that they name exist."""
import argparse
import importlib
import os
import pathlib
import re
import shlex
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted(str(path.relative_to(ROOT)) for pattern in (
    "*.md", "docs/*.md", "cfgs/*.md", "model_zoo/*.md", ".github/**/*.md") for path in ROOT.glob(pattern))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"data", "work_dirs", ".venv", ".git"}
# of every program, of torchrun, of pre-commit
OTHER_OPTIONS = {"--help", "--nproc_per_node", "--max_restarts", "--hook-type"}


def read(page):
    return (ROOT / page).read_text()


def outside_code(text):
    return FENCE.sub("", text)


def expand_braces(text):
    """Return the texts that a shell makes of ``text``: ``a{b,c}`` → ``ab``, ``ac``."""
    found = re.search(r"\{([^{}]*,[^{}]*)\}", text)
    if not found:
        return [text]
    return [whole for choice in found[1].split(",")
            for whole in expand_braces(text[:found.start()] + choice + text[found.end():])]


def slug(heading):
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def anchors(page):
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", outside_code(read(page)), re.MULTILINE)}


def shell_lines():
    """Return ``(page, folder, line)`` of every shell line; ``folder`` is where the lines before it have led."""
    found = []
    for page in PAGES:
        text = read(page)
        blocks = [body for language, body in FENCE.findall(text) if language == "shell"]
        blocks += re.findall(r"`((?:python|make|sh|torchrun) [^`]+)`", outside_code(text))
        for block in blocks:
            folder = "."
            for line in block.replace("\\\n", " ").splitlines():
                line = re.sub(r"\s#.*", "", line.removeprefix("$ ")).strip()
                if line.startswith("cd "):
                    folder = line.split()[1]
                elif line:
                    found.append((page, folder, line))
    return found


def programs():
    """Return ``(page, module, options)`` of every Python program in a shell line."""
    found = []
    for page, folder, line in shell_lines():
        words = shlex.split(re.sub(r"[<>|…\[\]]", " ", line).replace("'", " "))
        for index, word in enumerate(words):
            module = None
            if word == "-m" and re.fullmatch(r"[\w.]+", words[index + 1]):
                module = words[index + 1]
            elif word.endswith(".py") and (index == 0 or not words[index - 1].startswith("--")):
                module = os.path.normpath(os.path.join(folder, word))[:-3].replace("/", ".")
            if module and module.split(".")[0] not in ("venv", "pip", "pytest", "torch"):
                options = [word.partition("=")[0] for word in words[index + 1:] if word.startswith("--")]
                found.append((page, module, options))
                break
    return found


def paths(page):
    """Yield the words of a page's code that may be paths, without placeholders; braces are expanded."""
    text = read(page)
    for code in [body for _, body in FENCE.findall(text)] + re.findall(r"`([^`\n]+)`", outside_code(text)):
        for word in re.split(r"""[\s'"()=→]+""", code):
            if not re.search(r"[<>…$]|://", word):
                yield from expand_braces(word.strip(".,:;[]"))


class CapturedParserError(Exception):
    """Holds the parser of a program in place of what it would have parsed."""


@pytest.fixture(scope="module")
def options_of():
    """Return a function from a program's module to the options that its parser knows."""
    found = {}

    def options(name):
        if name not in found:
            found[name] = set(capture(name)._option_string_actions)
            if name == "tools.few_shot":  # hands the others on
                found[name] |= options("main")
        return found[name]

    return options


def capture(name):
    """Return the argument parser of the program ``name``, which is started and stopped where it parses."""
    def stop(parser, *args, **kwargs):
        raise CapturedParserError(parser)

    module = importlib.import_module(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        patch.setattr(sys, "argv", [name])
        with pytest.raises(CapturedParserError) as caught:
            module.main()
    return caught.value.args[0]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_code(read(page))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(file.resolve().relative_to(ROOT)), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    for path in paths(page):
        if "/" in path and path.split("/")[0] in FOLDERS:
            assert any(ROOT.glob(path.rstrip("/"))), f"{page}: {path}"
        elif path.endswith(".py"):
            assert any(ROOT.rglob(path)), f"{page}: {path}"


def test_programs_exist_and_know_their_options(options_of):
    found = programs()
    assert len(found) > 80
    for page, module, options in found:
        unknown = set(options) - options_of(module)
        assert not unknown, f"{page}: {module} has no {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_text_exist(page, options_of):
    known = OTHER_OPTIONS.union(*map(options_of, {module for _, module, _ in programs()}))
    given = re.findall(r"`[^`\n]*?(--[\w-]+)", outside_code(read(page)))
    assert set(given) - known == set()


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    makes = [(page, word) for page, _, line in shell_lines() if line.startswith("make ")
             for word in line.split()[1:] if "=" not in word]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    lines = [hook["entry"] for hook in hooks] + [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    makes += [("hooks and workflow", line.split()[1]) for line in lines if line.startswith("make ")]
    assert len(makes) > 8
    for page, target in makes:
        assert target in targets, f"{page}: make {target}"


def test_every_page_is_in_the_index():
    index = read("docs/README.md")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_every_folder_of_configs_is_explained():
    text = read("cfgs/README.md")
    assert [path.name for path in (ROOT / "cfgs").iterdir() if path.is_dir() and f"`{path.name}/`" not in text] == []


def test_messages_name_sections_and_pages_that_exist():
    headings = anchors("DATASET.md")
    for file in (path for folder in FOLDERS - {"tests"} for path in (ROOT / folder).rglob("*.py")):
        text = re.sub(r'"\s*\n\s*f?"', "", file.read_text())
        for section in re.findall(r"'([^'\n]+)' in DATASET\.md", text):
            assert any(heading.startswith(slug(section)) for heading in headings), f"{file}: {section}"
        for page in re.findall(r"\bdocs/[\w.]+\.(?:md|sh)\b", text):
            assert (ROOT / page).is_file(), f"{file}: {page}"


def test_versions_agree():
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.search(r"^## \[(\d.*)\] - (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert (citation["version"], str(citation["date-released"])) == released.groups()
    assert version == released[1]
