"""The partitions: one per client location, its GHL location id the key. Kept in step with the clients by a sensor."""

import dagster as dg

LOCATION = "location"

location_partitions = dg.DynamicPartitionsDefinition(name=LOCATION)
