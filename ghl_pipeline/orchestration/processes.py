"""Which process executes a run that the command line started, so that a killed one does not look alive for ever."""

import os
import socket
from pathlib import Path

PROCESS_TAG = "ghl_pipeline/process"
STARTED_BY_TAG = "ghl_pipeline/started_by"
COMMAND_LINE = "command line"


def this_process() -> str:
    """Host, pid and start of this process, as a tag value."""
    return process_tag(os.getpid())


def process_tag(pid: int) -> str:
    """The tag value of a process of this host."""
    return f"{socket.gethostname()}/{pid}/{_started(pid)}"


def is_gone(process: str) -> bool | None:
    """Whether the process of a tag value has ended; None when it is another host's, or the value is none of ours."""
    host, _, rest = process.partition("/")
    pid, _, started = rest.partition("/")
    if host != socket.gethostname() or not pid.isdigit():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    # The pid may have been given to another process since.
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """When the process started, in clock ticks since boot (field 22 of /proc/PID/stat); "" where there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The second field is the program's name in parentheses and may hold spaces.
    return stat.rpartition(")")[2].split()[19]
