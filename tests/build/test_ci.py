"""What runs elsewhere (workflows, hooks, images) says nothing of its own: it calls what is here, and pins the rest."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):.*##", MAKEFILE, re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def parsed(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # to whom `on` is a word


def foreign(command: str) -> str | None:
    """What a workflow's command calls that is neither a target of the Makefile nor a program of the repository."""
    program, *words = command.split()
    if program == "make":
        targets = [word for word in words if "=" not in word]
        return next((target for target in targets if target not in TARGETS), None if targets else command)
    return None if os.access(ROOT / program, os.X_OK) else program


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_make_and_pin_what_they_use(path: Path) -> None:
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert {"push", "pull_request"} <= workflow["on"].keys()
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"].isdigit(), name
        assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"]), name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            if "run" in step:
                assert foreign(step["run"]) is None, step
    used = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line)] == []


def test_the_workflows_lint_test_document_and_package_on_every_python() -> None:
    jobs = [job for path in WORKFLOWS for job in parsed(path)["jobs"].values()]
    called = {word for job in jobs for step in job["steps"] for word in step.get("run", "").split()[1:2]}
    assert {"lint", "test", "docs", "wheel"} <= called
    (pythons,) = [job["strategy"]["matrix"]["python"] for job in jobs if "strategy" in job]
    assert pythons == ["3.11", "3.12", "3.13"]


def test_a_commands_home_is_looked_for() -> None:
    assert foreign("make no-such-target") == "no-such-target"
    assert foreign("make wheel PYTHON=python3") is None
    assert foreign("make PYTHON=python3") == "make PYTHON=python3"
    assert foreign("pip install .") == "pip"
    assert foreign(".ci/packages") is None


def test_the_hooks_are_what_make_lint_runs() -> None:
    (repository,) = parsed(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    recipe = re.search(r"^lint:.*\n((?:\t.+\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    lines = [re.sub(r" \$\((NATIVE|PYTHON_CODE)\)$", "", line.strip()) for line in recipe[1].splitlines()]
    assert [hook["entry"] for hook in repository["hooks"]] == [line.replace("$(BIN)", ".venv/bin") for line in lines]
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_images_say_that_they_were_not_built_and_copy_what_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Not built or run by the project yet.\n")
    assert f"docker/{path.name}" in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    let_in = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    copied = {name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for name in line.split()}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert copied == let_in
    assert [line for line in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if ":" not in line] == []


def test_reports_of_bugs_ask_for_what_the_command_tells() -> None:
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    bug = parsed(folder / "bug.yml")
    (field,) = [part for part in bug["body"] if "vtsum env --report" in part["attributes"]["label"]]
    assert field["validations"]["required"] == "true"
    for path in folder.glob("*.yml"):
        if path.stem != "config":
            form = parsed(path)
            assert {"name", "description", "body"} <= form.keys()
            assert len({part["id"] for part in form["body"]}) == len(form["body"])
            assert all("label" in part["attributes"] for part in form["body"])
