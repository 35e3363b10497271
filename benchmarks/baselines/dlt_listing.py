"""A dlt pipeline: its `rest_api` source lists the location's contacts into DuckDB, by pages of 500 as dlt's docs page.

JSON lines, because with dlt's default of INSERT statements the same took 6 GB and twice the time. It retries a 429 with
a pause of its own. Does not: keep to the limit beforehand, match contacts with leads, merge; a
run that is killed while it lists begins again.
"""

import os
import tempfile

import dlt
from dlt.sources.rest_api import rest_api_source

from benchmarks.baselines.asked import Asked


def main() -> None:
    """Loads all contacts of the location; the slice is not looked at."""
    asked = Asked.from_environment()
    source = rest_api_source(
        {
            "client": {
                "base_url": asked.url,
                "headers": {"Version": asked.headers["Version"]},
                "auth": {"type": "bearer", "token": asked.token},
            },
            "resources": [
                {
                    "name": "contacts",
                    "primary_key": "id",
                    "endpoint": {
                        "path": "contacts/search",
                        "method": "POST",
                        "json": {"locationId": asked.location, "pageLimit": 500},
                        "data_selector": "contacts",
                        "paginator": {
                            "type": "cursor",
                            "cursor_path": "contacts[-1].searchAfter",
                            "cursor_body_path": "searchAfter",
                        },
                    },
                }
            ],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        pipeline = dlt.pipeline(
            "contacts",
            pipelines_dir=folder,
            destination=dlt.destinations.duckdb(f"{folder}/contacts.duckdb"),
            dataset_name="ghl",
        )
        pipeline.run(source, loader_file_format="jsonl").raise_on_failed_jobs()
        with pipeline.sql_client() as client:
            rows = client.execute_sql("SELECT count(*) FROM contacts")
    print(rows[0][0])


if __name__ == "__main__":
    main()
