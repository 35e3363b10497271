"""The software bill of materials names what is installed, at the versions of the lock file."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ghl_pipeline_tests.supply_chain.audit import ROOT, UV

pytestmark = pytest.mark.skipif(not UV.exists(), reason="uv is not in .tools/, where `make setup` puts it")


@pytest.fixture(scope="module")
def sbom(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `make sbom` writes."""
    path = tmp_path_factory.mktemp("sbom") / "sbom.json"
    subprocess.run(["make", "--silent", "sbom", f"SBOM={path}"], cwd=ROOT, check=True, capture_output=True, timeout=120)
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def locked() -> dict[str, set[str]]:
    """Versions by package in `uv.lock`."""
    versions: dict[str, set[str]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]:
        if "version" in package:
            versions.setdefault(package["name"], set()).add(package["version"])
    return versions


def required(groups: list[str]) -> set[str]:
    """The names in requirements, as the lock file spells them."""
    names = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in groups)
    return {re.sub(r"[._]+", "-", name.group().lower()) for name in names if name}


def test_it_is_cyclonedx_with_a_purl_and_hashes_for_every_component(sbom: dict[str, Any]) -> None:
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.5")
    assert sbom["metadata"]["component"]["name"] == "ghl-pipeline"
    for component in sbom["components"]:
        assert component["purl"].startswith(f"pkg:pypi/{component['name']}@{component['version']}")
        assert any(reference.get("hashes") for reference in component["externalReferences"]), component["name"]


def test_every_runtime_dependency_is_in_it_at_the_version_of_the_lock(sbom: dict[str, Any]) -> None:
    project = tomllib.loads((Path(ROOT) / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [each for group in project["optional-dependencies"].values() for each in group]
    components = {component["name"]: component["version"] for component in sbom["components"]}
    assert required([*project["dependencies"], *extras]) <= set(components)
    versions = locked()
    assert [name for name, version in components.items() if version not in versions[name]] == []
    assert len(components) > 80


def test_what_only_developers_use_is_not_in_it(sbom: dict[str, Any]) -> None:
    names = {component["name"] for component in sbom["components"]}
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "playwright", "dlt"}
