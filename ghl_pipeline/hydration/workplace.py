"""What a run has in hand at one location while it holds the location's lease."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.hydration.knowledge import LocationKnowledge
from ghl_pipeline.hydration.planning import PlanRules
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.orchestration.reports import History


@dataclass(frozen=True, slots=True)
class Workplace:
    """The collaborators of every step at a location.

    Attributes:
        engine: the dashboard database.
        access: the client, its location and its token.
        client: the location's, throttled.
        knowledge: what is known of the location.
        history: where progress is told and resumed from.
        rules: what a plan relies on.
        page_size: leads looked up, recorded and written at a time.
        check_lease: raises LeasesLost when another run may be at work; called before every write.
    """

    engine: Engine
    access: LocationAccess
    client: LocationClient
    knowledge: LocationKnowledge
    history: History
    rules: PlanRules
    page_size: int
    check_lease: Callable[[], None]
