"""Calendly's objects as its API shows them."""

from datetime import UTC, datetime

from ghl_pipeline.sandbox.calendly_users import API, CalendlyUser, EventType
from ghl_pipeline.sandbox.responses import JsonObject, moment


def user_object(user: CalendlyUser) -> JsonObject:
    """A user, as `/users/me` shows it."""
    return {
        "uri": user.uri,
        "name": user.slug.replace("-", " ").title(),
        "slug": user.slug,
        "email": f"{user.slug}@example.com",
        "scheduling_url": f"https://calendly.com/{user.slug}",
        "timezone": user.time_zone,
        "avatar_url": None,
        "created_at": moment(0),
        "updated_at": moment(0),
        "current_organization": user.organization,
        "resource_type": "User",
        "locale": "en",
    }


def event_type_object(owner: CalendlyUser, event_type: EventType) -> JsonObject:
    """An event type in a list."""
    team = event_type.team
    profile: JsonObject = {"type": "User", "name": owner.slug.replace("-", " ").title(), "owner": owner.uri}
    if team is not None:
        profile = {"type": "Team", "name": team.replace("-", " ").title(), "owner": f"{API}/teams/{team}"}
    return {
        "uri": event_type.uri,
        "name": event_type.name,
        "active": event_type.active,
        "booking_method": "instant",
        "slug": event_type.slug,
        "scheduling_url": event_type.scheduling_url,
        "duration": event_type.schedule.minutes,
        "kind": event_type.kind,
        "pooling_type": event_type.pooling_type,
        "type": "StandardEventType",
        "color": "#8247f5",
        "created_at": moment(event_type.created_at),
        "updated_at": moment(event_type.created_at),
        "internal_note": None,
        "description_plain": None,
        "description_html": None,
        "profile": profile,
        "secret": event_type.secret,
        "deleted_at": None,
        "admin_managed": False,
        "custom_questions": [],
    }


def available_time(event_type: EventType, at: datetime) -> JsonObject:
    """A free time, in UTC whatever zone it is given in."""
    start = at.astimezone(UTC)
    return {
        "status": "available",
        "invitees_remaining": event_type.seats,
        "start_time": moment(int(start.timestamp() * 1000)),
        "scheduling_url": f"{event_type.scheduling_url}/{start:%Y-%m-%dT%H:%M:%SZ}",
    }
