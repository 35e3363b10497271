"""Which locations a run is asked for: those of its configuration, else its partitions."""

from collections.abc import Sequence

import dagster as dg


def asked_locations(context: dg.AssetExecutionContext, configured: Sequence[str]) -> list[str]:
    """The locations that the run is to work on, in order.

    Args:
        context: the run's.
        configured: what its configuration names; empty for the partitions it was started for.

    Raises:
        dagster.Failure: it names none and was started for no partition. A run that did nothing would look as if all
            were done, and what Dagster says by itself is kept out of the log as any foreign error's text.
    """
    if configured:
        return list(configured)
    if context.has_partition_key or context.has_partition_key_range:
        return list(context.partition_keys)
    raise dg.Failure(
        "The run was started for no location: launch it for partitions (location ids), or name locations in the "
        "Launchpad's configuration: locations: [...]. Nothing was done.",
        allow_retries=False,
    )
