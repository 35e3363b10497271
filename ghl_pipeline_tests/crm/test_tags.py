"""What tags say of a vendor or a lead, in whatever order and form they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.crm.tags import STATUS_LEVELS, has_vendor_tag, is_new_lead, vendor_status
from ghl_pipeline.ghl.contact_details import tags_of

SOME_TAGS = [level.tag for level in STATUS_LEVELS] + ["new vendor", "new lead", "newsletter"]


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        (["new vendor application"], "new application"),
        (["onboarding in process"], "onboarding in process"),
        (["manual approval"], "pending"),
        (["manually approved"], "active"),
        (["deactivated"], "deactivated"),
        (["reactivated"], "active"),
        (["new vendor application", "onboarding in process"], "onboarding in process"),
        (["onboarding in process", "manual approval"], "pending"),
        (["manual approval", "manually approved"], "active"),
        (["manually approved", "deactivated"], "deactivated"),
        (["deactivated", "reactivated"], "active"),
        (["new vendor application", "manually approved", "deactivated", "newsletter"], "deactivated"),
        (["new vendor"], None),
        (["reactivated customer", "not deactivated"], None),
        ([], None),
    ],
)
def test_the_highest_level_among_the_tags_is_the_status(tags: list[str], status: str | None) -> None:
    assert vendor_status(tags) == status


@pytest.mark.parametrize(
    "value",
    [
        ["Manually Approved", "Deactivated"],
        "newsletter, Manually  approved ,DEACTIVATED",
        [{"name": "deactivated"}, {"tag": "Manually Approved"}, {"label": "x"}],
    ],
)
def test_tags_count_as_list_as_text_and_as_objects(value: object) -> None:
    assert vendor_status(tags_of(value)) == "deactivated"
    assert has_vendor_tag(tags_of(value))


@given(st.lists(st.sampled_from(SOME_TAGS)).flatmap(lambda tags: st.tuples(st.just(tags), st.permutations(tags))))
def test_the_order_of_tags_does_not_matter(orders: tuple[list[str], list[str]]) -> None:
    one, other = orders
    assert vendor_status(one) == vendor_status(other)
    assert has_vendor_tag(one) == has_vendor_tag(other)


@pytest.mark.parametrize(
    ("tag", "is_vendor", "is_new"),
    [
        ("new vendor", True, False),
        ("new vendor application", True, False),
        ("manually approved", True, False),
        ("new lead", False, True),
        ("manual approval", False, False),
        ("new leads", False, False),
        ("vendor", False, False),
    ],
)
def test_which_tags_are_signals(tag: str, is_vendor: bool, is_new: bool) -> None:
    assert has_vendor_tag([tag]) is is_vendor
    assert is_new_lead([tag]) is is_new
