"""docs/reference/ is what the code says of itself, and explains every outcome and error."""

import re

import pytest

from ghl_pipeline.database.tables import metadata
from ghl_pipeline.hydration.outcomes import Outcome
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.docs.reference import FOLDER, ROOT, error_classes, exit_codes, pages


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_page_of_the_reference_is_what_the_code_says(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == pages()[name], f"docs/reference/{name} is out of date; run: make docs"


def test_every_variable_has_a_name_of_its_own_and_a_meaning() -> None:
    fields = Settings.model_fields.values()
    assert all(field.alias and field.description for field in fields)
    assert len({field.alias for field in fields}) == len(fields)


def test_every_table_says_what_it_is_for() -> None:
    assert [table.name for table in metadata.sorted_tables if not table.comment] == []


def test_every_exit_code_of_an_error_has_a_meaning() -> None:
    assert {kind.exit_code for kind in error_classes()} <= exit_codes().keys()


def test_the_example_environment_names_only_variables_that_are_read() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", example, re.MULTILINE))
    assert named, "the example names no variable at all"
    assert named <= {field.alias for field in Settings.model_fields.values()}


def test_every_outcome_of_a_lead_is_explained() -> None:
    assert explained("How a lead ends") == {outcome.value for outcome in Outcome}


def test_every_error_is_explained_and_no_other() -> None:
    branches = {"GhlError", "TransientGhlError", "PermanentGhlError", "PartlyFailed"}  # never raised themselves
    assert explained("What the errors mean") == {kind.__name__ for kind in error_classes()} - branches


def explained(heading: str) -> set[str]:
    """The first column of all tables below a heading of docs/reference/errors.md; each is there once."""
    page = (FOLDER / "errors.md").read_text(encoding="utf-8")
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    names = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert len(names) == len(set(names))
    return set(names)
