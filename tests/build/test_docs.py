"""The site: it builds without a warning, and holds what each kind of reader looks for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

import vtsum

ROOT = Path(__file__).resolve().parents[2]


def test_the_site_builds_without_a_warning_and_holds_the_reference(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", tmp_path / "trees"]
    done = subprocess.run([*command, ROOT / "docs", tmp_path / "site"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    text = {page.stem: page.read_text(encoding="utf-8") for page in (tmp_path / "site").glob("*.html")}
    for name in ("summarize", "recut", "batch", "export"):
        assert f'id="vtsum.{name}"' in text["api"]  # with what its options are
    assert 'id="vtsum_kernels.sliding_window_attention"' in text["api"]
    assert "--budget" in text["commands"]
    assert "--model.memory_slots" in text["commands"]
    assert "encoded_share" in text["summary_json"]


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 180
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_citation_names_this_version_and_the_work_that_is_followed() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], cited["license"]) == (vtsum.__version__, "Apache-2.0")
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["references"][0]["identifiers"][0]["value"] == "arXiv:2303.12060"
