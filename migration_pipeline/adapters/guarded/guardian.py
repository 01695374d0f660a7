"""Runs one server, and ends it when the process that asked for it ends, however that ends.

Run as a script, with the standard library alone, so that it starts fast. It holds the reading end of a pipe; the
owner holds the other. End of file there means that the owner wants the server gone, or is gone itself.

    python guardian.py '{"command": [...], "log": "…", "user": null, "stop": "SIGTERM", "grace": 10}'
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Start the server, wait for the pipe's end, stop the server."""
    task = json.loads(sys.argv[1])
    user = task["user"]
    as_user = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
    with open(task["log"], "ab") as log:  # noqa: PTH123 - no further import
        server = subprocess.Popen(  # noqa: S603 - the owner's command
            task["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **as_user,
        )
    # Ctrl-C reaches the whole terminal; whether it means the end is the owner's to say. Only now, for the server
    # would have inherited it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(server,), daemon=True).start()
    while os.read(0, 4096):
        pass
    _stop(server, getattr(signal, task["stop"]), task["grace"])
    os._exit(0)


def _follow(server: "subprocess.Popen[bytes]") -> None:
    """End with the server, so that the owner sees that it died."""
    os._exit(server.wait() or 1)


def _stop(server: "subprocess.Popen[bytes]", gracefully: int, grace: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        server.send_signal(gracefully)
        try:
            server.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


if __name__ == "__main__":
    main()
