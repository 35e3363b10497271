"""From the bytes that a provider sent to an `Event`. Pure: the same bytes always say the same."""

from datetime import UTC, datetime

import msgspec

from ghl_pipeline.webhooks.events import Event, Provider, UnreadableEvent
from ghl_pipeline.webhooks.reading.emailbison_events import read_emailbison_event
from ghl_pipeline.webhooks.reading.ghl_events import read_ghl_event
from ghl_pipeline.webhooks.reading.json_values import read_object
from ghl_pipeline.webhooks.reading.workflow_events import (
    escape_line_breaks,
    read_workflow_event,
    salvage_workflow_event,
)

__all__ = ["UnreadableEvent", "read_event"]


def read_event(
    provider: Provider, body: bytes, *, location_id: str | None = None, received_at: datetime | None = None
) -> Event:
    """Reads what a provider sent.

    Args:
        provider: who sent it.
        body: as it was received.
        location_id: of the client whose secret it came with, where there is a secret: it is part of the event's key.
        received_at: aware; its date is in the key of a workflow's event that has no id and no time. None: now.

    Raises:
        UnreadableEvent: it is no JSON object, or says nothing that can be stored. Its text quotes nothing.
    """
    try:
        return _read(provider, body, location_id, received_at or datetime.now(UTC))
    except RecursionError:
        pass
    raise UnreadableEvent("An event is nested too deeply to be one. Nothing was stored.")


def _read(provider: Provider, body: bytes, location_id: str | None, received_at: datetime) -> Event:
    if provider is Provider.GHL_WORKFLOW:
        payload = _object_in(body)
        if payload is None and (mended := escape_line_breaks(body)) != body:
            payload = _object_in(mended)
        if payload is None:
            return salvage_workflow_event(body, location_id, received_at)
        return read_workflow_event(payload, location_id, received_at)
    payload = _object_in(body)
    if payload is None:
        raise UnreadableEvent("An event is no JSON object. Nothing was stored.")
    if provider is Provider.GHL:
        return read_ghl_event(payload)
    return read_emailbison_event(payload, location_id)


def _object_in(body: bytes) -> dict[str, object] | None:
    try:
        return read_object(body)
    except msgspec.DecodeError:
        return None
