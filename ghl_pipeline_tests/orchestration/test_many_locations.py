"""Many locations side by side: whose turn does not come any more is left out, and nothing is on record of it."""

from sqlalchemy import Engine, text

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.orchestration.many_locations import work_on_locations

LOCATIONS = [f"Location{number:012d}" for number in range(6)]


async def test_turns_come_in_order_until_no_more_may_begin(engine: Engine) -> None:
    begun: list[str] = []

    async def work(location_id: str) -> int:
        begun.append(location_id)
        if location_id == LOCATIONS[1]:
            raise InvalidInput("no")
        return len(begun)

    result = await work_on_locations(
        engine,
        LOCATIONS,
        work,
        capability="test",
        run_id=None,
        counts=lambda number: {"number": number},
        concurrency=1,
        may_begin=lambda: len(begun) < 3,
    )
    assert begun == LOCATIONS[:3]
    assert list(result.reports) == [LOCATIONS[0], LOCATIONS[2]]
    assert [failure.location_id for failure in result.failures] == [LOCATIONS[1]]
    assert result.not_begun == tuple(LOCATIONS[3:])
    with engine.connect() as connection:
        recorded = connection.execute(text("SELECT location_id FROM location_attempts ORDER BY id")).scalars().all()
    assert recorded == LOCATIONS[:3]
