"""The failure of a run of which some locations failed: it names each, with its reason."""

from collections.abc import Collection, Sequence

import dagster as dg

from ghl_pipeline.orchestration.failures import FailedLocation

FAILED_LOCATIONS = "failed_locations"


def run_failure(
    failures: Sequence[FailedLocation], locations: int, consequence: str, *, not_reached: Collection[str] = ()
) -> dg.Failure:
    """The run's failure, which is raised when all that could be done is done. Nothing is retried blindly.

    Args:
        failures: the locations that failed; each reason is in the event's metadata, as `failed_locations`.
        locations: how many were asked for.
        consequence: in whole sentences, what becomes of those that failed, and what was kept.
        not_reached: locations whose turn did not come in the run's time.
    """
    unreached = f" {len(not_reached)} were not reached in the run's time and are first in the next." * bool(not_reached)
    metadata: dict[str, dg.MetadataValue] = {
        FAILED_LOCATIONS: dg.MetadataValue.json(
            {each.location_id: {"error": each.error_class, "text": each.text, "permanent": each.permanent}
             for each in failures}
        )
    }  # fmt: skip
    if not_reached:
        metadata["not_reached"] = dg.MetadataValue.json(list(not_reached))
    return dg.Failure(
        f"{len(failures)} of {locations} locations failed; the others are done.{unreached} Each reason is in this "
        f"event's metadata. {consequence}",
        metadata=metadata,
        allow_retries=False,
    )
