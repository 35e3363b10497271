"""Which accounts can send, by EmailBison's words for it. Pure.

The words are documented nowhere; `Connected` was seen, written in either case. An unknown word counts as able only in
a listing in which nothing is known to be able: then a word has probably changed, and a send that is refused, which is
healed, is better than a client who cannot answer anybody.
"""

from collections.abc import Mapping

ABLE = frozenset({"connected"})
UNABLE = frozenset(
    {
        "deleted", "disabled", "disconnected", "error", "expired", "failed", "inactive", "invalid",
        "needs reconnect", "needs reconnection", "not connected", "paused", "pending", "reconnect", "removed",
        "suspended", "unverified",
    }
)  # fmt: skip


def is_known(status: str | None) -> bool:
    """Whether the word is one of those that are understood here."""
    return _plain(status) in ABLE | UNABLE


def who_can_send(statuses: Mapping[int, str | None]) -> dict[int, bool]:
    """Whether each account of a listing can send.

    Args:
        statuses: of all accounts of a workspace, by id; None: the row had none.
    """
    nothing_is_able = not any(_plain(status) in ABLE for status in statuses.values())
    return {
        id_: _plain(status) in ABLE or (nothing_is_able and not is_known(status)) for id_, status in statuses.items()
    }


def _plain(status: str | None) -> str:
    return " ".join((status or "").replace("_", " ").replace("-", " ").lower().split())
