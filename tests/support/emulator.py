"""The emulator as a separate process, and a client of its control endpoints."""

import json
import subprocess
import urllib.parse
import urllib.request
from typing import Self

from tests.support.processes import guarded
from tests.support.project import program

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class EmulatorProcess:
    """`moengage-cohort emulator` for the duration of a `with` block, or of this process.

    Args:
        *options: Further options of the command.
    """

    workspace_id = "demo-workspace"
    data_api_key = "demo-key"

    def __init__(self, *options: str) -> None:
        self.url = ""
        self._options = options
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        """Start it, and wait until it listens."""
        command = [program("moengage-cohort"), "emulator", "--port=0", *self._options]
        self._process = guarded(command, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        if "http://" not in line:
            self.__exit__()
            message = f"the emulator did not start: {line!r}"
            raise RuntimeError(message)
        self.url = line.split()[-1]
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and wait until it has ended."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def members(self, cohort_id: str) -> set[tuple[str | None, str | None]]:
        """Return the members that it has accepted into a cohort, as (uid, anonymous_id)."""
        lines = self._get("members", cohort_id=cohort_id).splitlines()
        members = [json.loads(line) for line in lines]
        return {(member.get("uid"), member.get("anonymous_id")) for member in members}

    def requests(self, cohort_id: str) -> list[dict]:
        """Return the requests that it received for a cohort."""
        return json.loads(self._get("requests", cohort_id=cohort_id))["requests"]

    def _get(self, what: str, **query: str) -> bytes:
        address = f"{self.url}/_emulator/{what}?{urllib.parse.urlencode(query)}"
        with OPENER.open(address, timeout=30) as answer:
            return answer.read()
