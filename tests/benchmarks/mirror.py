"""A mirror's steady state: most members are as they were, some come and some go.

    python -m tests.benchmarks.mirror 10000000

The cohort is adopted first, so that nothing has to be sent for it; then a run of the target, as a
process of its own, reads all members again, of whom one in 2,000 is gone and as many are new. It
prints how long that run took and how much memory it had resident at most.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from pathlib import Path

from tests.support.emulator import EmulatorProcess
from tests.support.project import program
from tests.support.singer import UNLIMITED, environment

GONE_ONE_IN = 2_000
AT_ONCE = 20_000
BEFORE_UID, AFTER_UID = '{"type":"RECORD","stream":"users","record":{"uid":"', '"}}'


def uid(number: int) -> str:
    """A user's id that looks like a UUID."""
    digits = hashlib.md5(number.to_bytes(8, "little")).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def write(lines: t.Iterable[str], file: t.IO[bytes]) -> None:
    """Write lines, many at once."""
    waiting: list[str] = []
    for line in lines:
        waiting.append(line)
        if len(waiting) == AT_ONCE:
            file.write("\n".join(waiting).encode() + b"\n")
            waiting.clear()
    file.write("".join(f"{line}\n" for line in waiting).encode())


def snapshot(size: int) -> t.Iterator[str]:
    """A tap's output: the cohort with a few members gone and as many new."""
    yield json.dumps(
        {
            "type": "SCHEMA",
            "stream": "users",
            "schema": {"properties": {"uid": {"type": "string"}}},
            "key_properties": ["uid"],
        }
    )
    for number in range(size + size // GONE_ONE_IN):
        if number >= size or number % GONE_ONE_IN:
            yield f"{BEFORE_UID}{uid(number)}{AFTER_UID}"


def main(size: int) -> None:
    """Measure one run."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, EmulatorProcess() as emulator:
        home = Path(name)
        config = home / "config.json"
        settings = {
            "workspace_id": emulator.workspace_id,
            "data_api_key": emulator.data_api_key,
            "data_center": "01",
            "partner": "acme",
            "api_url": emulator.url,
            "sync_mode": "mirror",
            "requests_per_minute": UNLIMITED,
            "report_path": str(home / "report.json"),
        }
        config.write_text(json.dumps(settings))
        members = home / "members.csv"
        with members.open("wb") as file:
            write(itertools.chain(["uid"], map(uid, range(size))), file)
        command = [program("moengage-cohort"), "adopt", "--config", str(config), "users"]
        named = ["--csv", str(members), "--stream", "users", "--name", "users"]
        subprocess.run([*command, *named], env=environment(home), check=True)
        messages = home / "messages.singer"
        with messages.open("wb") as file:
            write(snapshot(size), file)
        seconds, peak = timed(config, messages, environment(home))
        (cohort,) = json.loads((home / "report.json").read_text())["cohorts"]
    told = f"{cohort['added']:,} in, {cohort['removed']:,} out, {cohort['requests']} requests"
    print(f"{size:,} members, {told}: {seconds:.1f} s, {peak:.0f} MB resident at most")


def timed(config: Path, messages: Path, env: dict[str, str]) -> tuple[float, float]:
    """Run the target on messages; return seconds, and MB resident at most.

    The latter is at least what we have, since the kernel counts a child's memory from its fork.
    """
    begin = time.monotonic()
    with messages.open("rb") as source:
        process = subprocess.Popen(
            [program("target-moengage-cohort"), "--config", str(config)],
            stdin=source,
            stdout=subprocess.DEVNULL,
            env=env,
        )
    killer = threading.Timer(3_600, process.kill)
    killer.start()
    _, status, usage = os.wait4(process.pid, 0)
    killer.cancel()
    if status:
        message = f"the target ended with status {status}"
        raise RuntimeError(message)
    return time.monotonic() - begin, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main(int(sys.argv[1]))
