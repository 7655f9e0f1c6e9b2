"""A search for planted texts in everything that a process leaves behind."""

import json
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

from tests.support.project import program
from tests.support.singer import environment

KEY = "planted-key-7f3a9c"
MEMBER = 'planted-member-é"x@example.com'
ANONYMOUS = "planted-anonymous-51d2"
SECRETS = (KEY, MEMBER, ANONYMOUS, "planted-member", "planted-anonymous", "example.com")

_SDK_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stderr",
            "formatter": "plain",
            "level": "DEBUG",
        }
    },
    "root": {"level": "DEBUG", "handlers": ["console"], "propagate": True},
    "loggers": {
        name: {"level": "DEBUG"}
        for name in ("urllib3", "requests", "singer_sdk", "target-moengage-cohort", "fsspec")
    },
}


class Watched:
    """A runner that keeps the output of its processes, and their files in a separate directory.

    Attributes:
        inputs: For files that processes read, which may contain planted texts.
        report: For `report_path`.
        rejects: For `rejects_path`.
        seen: Everything on standard output and standard error, and arguments.
        home: The home of the processes, with their state and temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self.home, self.inputs = folder / "home", folder / "inputs"
        for each in (self.home, self.inputs, self.home / "tmp"):
            each.mkdir(mode=0o700)
        self.report, self.rejects = self.home / "report.json", self.home / "rejects.singer"
        self.seen = ""

    def run(
        self,
        settings: dict[str, t.Any],
        data: bytes,
        *command: str,
        sdk_log: bool = False,
        largest_file: int | None = None,
    ) -> int:
        """Run a command on an input at DEBUG; return its exit code.

        Args:
            settings: The configuration.
            data: Standard input.
            *command: Of `moengage-cohort`, in one string, and its arguments, of which ``{data}`` is
                a file with the input; nothing is the target.
            sdk_log: Whether logging is set up by the SDK's own configuration file.
            largest_file: Blocks of 512 bytes that a file may have, as on a full disk.
        """
        path = self.inputs / "config.json"
        path.write_text(json.dumps(settings))
        start = [sys.executable, "-m", "target_moengage_cohort", "--config", str(path)]
        if command:
            given = self.inputs / "data"
            given.write_bytes(data)
            name, *arguments = (each.replace("{data}", str(given)) for each in command)
            start = [program("moengage-cohort"), *name.split(), "--config", str(path), *arguments]
        if largest_file is not None:
            start = ["sh", "-c", f'ulimit -f {largest_file}; exec "$@"', "sh", *start]
        variables = dict.fromkeys(("LOGLEVEL", "TARGET_MOENGAGE_COHORT_LOGLEVEL"), "DEBUG")
        variables["TMPDIR"] = str(self.home / "tmp")
        if sdk_log:
            log = self.inputs / "log.json"
            log.write_text(json.dumps(_SDK_LOG))
            variables["SINGER_SDK_LOG_CONFIG"] = str(log)
        process = subprocess.Popen(
            start,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self.home, **variables),
        )
        shown = Path(f"/proc/{process.pid}/cmdline")
        self.seen += shown.read_text() if shown.exists() else ""
        out, err = process.communicate(data, timeout=60)
        self.seen += out.decode(errors="replace") + err.decode(errors="replace")
        return process.returncode

    def check(self) -> None:
        """Check that only ledgers and rejects have planted texts, and that files are private."""
        seen, wrong = {"the output": self.seen}, []
        for path in self.home.rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                wrong.append(f"{path} has {mode:o}")
            if not path.is_file():
                continue
            found = path.read_bytes().decode(errors="replace")
            is_ours = "ledger" in path.relative_to(self.home).parts or path == self.rejects
            seen[str(path)] = (
                found if not is_ours else "".join(each for each in [KEY] if each in found)
            )
        assert [] == wrong
        assert "Traceback" not in self.seen
        assert "fault of this program" not in self.seen
        assert [] == [
            (where, secret)
            for where, text in seen.items()
            for secret in SECRETS
            if secret.lower() in text.lower()
        ]
