"""What a job runs: an op's assets, with the checks that the op itself evaluates and no others."""

import dagster as dg


def assets_of(definition: dg.AssetsDefinition) -> dg.AssetSelection:
    """The assets of an op and its own checks.

    Dagster adds every check of a selected asset to a job. Those of operation judge all locations, every 15 minutes; in
    a run that handles events every few seconds they would be steps that cost more than the work.
    """
    selection = dg.AssetSelection.assets(*definition.keys).without_checks()
    return selection | dg.AssetSelection.checks(*definition.check_keys)
