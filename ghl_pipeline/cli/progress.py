"""A progress display on stderr, fed by what the work itself records in the database."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ghl_pipeline.cli.output import err
from ghl_pipeline.hydration.progress import latest_attempt, locations_ended, read_progress

LOOK_EVERY_SECONDS = 0.3

# Each bar's name with how far it is: done, and of how many (None: not known yet).
Bars = Mapping[str, tuple[int, int | None]]


@contextmanager
def watch_locations(engine: Engine, locations: Sequence[str], *, shown: bool = True) -> Iterator[None]:
    """Shows how many leads of the locations are looked up and written while the block runs, and how far pulls are.

    Read from the lists in work, so it shows the work of another process as well, and a resumed list from where it is.
    Draws nothing where stderr is not a terminal.
    """

    def look() -> Bars:
        now = read_progress(engine, locations)
        pulled = {"contacts pulled": (now.pulled, now.to_pull)} if now.to_pull else {}
        return {
            "contacts resolved": (now.looked_up, now.listed),
            "leads written back": (now.written, now.listed),
            **pulled,
        }

    with _display({"contacts resolved": (0, None), "leads written back": (0, None)}, look, shown=shown):
        yield


@contextmanager
def watch_locations_done(engine: Engine, locations: Sequence[str], *, shown: bool = True) -> Iterator[None]:
    """Shows how many of the locations are done while the block runs, for work that keeps no list.

    Draws nothing where stderr is not a terminal.
    """
    before = latest_attempt(engine)

    def look() -> Bars:
        return {"locations done": (locations_ended(engine, locations, after=before), len(locations))}

    with _display({"locations done": (0, len(locations))}, look, shown=shown):
        yield


@contextmanager
def _display(first: Bars, look: Callable[[], Bars], *, shown: bool) -> Iterator[None]:
    """Draws the bars, and looks anew again and again until the block ends."""
    if not shown or not err.is_terminal:
        yield
        return
    finished = threading.Event()
    display = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )
    tasks = {name: display.add_task(name, completed=done, total=total) for name, (done, total) in first.items()}

    def keep_looking() -> None:
        while not finished.wait(LOOK_EVERY_SECONDS):
            try:
                now = look()
            except SQLAlchemyError:
                continue  # the display is not worth an error; the work reports its own
            for name, (done, total) in now.items():
                if name not in tasks:
                    tasks[name] = display.add_task(name)
                display.update(tasks[name], completed=done, total=total)

    watcher = threading.Thread(target=keep_looking, name="progress", daemon=True)
    with display:
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            watcher.join()
