"""`ghl-pipeline` for a shell of a test: each call is a process of its own, and none pays the seconds of the imports.

A server imports the program once and forks for every call; what stands on the shell's PATH hands it the words, the
folder, the environment and the three standard streams, and ends with the exit code it is told.
"""

import array
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

READY = "ready"
# Without site-packages: 20 ms instead of 60.
_CLIENT = """
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
call = json.dumps({{"words": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}).encode()
socket.send_fds(server, [len(call).to_bytes(8, "big")], [0, 1, 2])
server.sendall(call)
code = server.recv(1)
os._exit(code[0] if code else 99)
"""


@contextmanager
def program_on_path(folder: Path) -> Iterator[Path]:
    """A folder for PATH with `ghl-pipeline` in it."""
    shelf, address = folder / "bin", folder / "program"
    shelf.mkdir()
    (folder / "client.py").write_text(_CLIENT.format(path=str(address)))
    program = shelf / "ghl-pipeline"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {folder / "client.py"} "$@"\n')
    program.chmod(0o755)
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "ghl_pipeline_tests.docs.program", str(address), str(folder)],
        env=environment | {"COLUMNS": "200", "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY
        try:
            yield shelf
        finally:
            # A call that was given up may go on in its group; asked first, so that it ends what it has started.
            for order in (signal.SIGINT, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, order)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(5)


def serve(address: str, empty_folder: Path) -> NoReturn:
    """Forks for every call, until killed or until standard input ends."""
    from ghl_pipeline import settings  # noqa: PLC0415 - the other side of this module needs nothing of it
    from ghl_pipeline.cli.app import main  # noqa: PLC0415

    # No `.env` of the person who runs the tests reaches a command.
    setattr(settings, "project_root", lambda: empty_folder)  # noqa: B010 - mypy wants no assignment to a function
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    while True:
        try:
            call, _ = listener.accept()
        except KeyboardInterrupt:
            os._exit(0)
        if os.fork() == 0:
            listener.close()
            _answer(call, main)
        call.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _end_with_the_starter() -> None:
    """A test that is killed leaves no server behind: the pipe that it held ends."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def _answer(call: socket.socket, main: Callable[[], None]) -> NoReturn:
    size, ancillary, _, _ = call.recvmsg(8, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    streams = array.array("i")
    for _, _, data in ancillary:
        streams.frombytes(data)
    received = bytearray()
    while len(received) < int.from_bytes(size, "big"):
        received += call.recv(1 << 20)
    order = json.loads(bytes(received))
    for number, given in enumerate(streams):
        os.dup2(given, number)
        os.close(given)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["ghl-pipeline", *order["words"]]
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - the streams given
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - told as an exit code that no command has
        code = 98
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    _stop_what_still_runs()
    with suppress(OSError):
        call.sendall(bytes([code & 0xFF]))
    os._exit(0)


def _stop_what_still_runs() -> None:
    """Lets go of what an ordinary end would: the embedded server stops with its last user."""
    import atexit  # noqa: PLC0415

    atexit._run_exitfuncs()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
