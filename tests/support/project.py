"""A copy of this repository's Meltano project that runs the programs already installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from target_moengage_cohort.emulator import Emulator
from tests.support.postgres import Postgres
from tests.support.processes import run_guarded

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = {"extractors": "tap-postgres", "loaders": "target-moengage-cohort"}
PLUGINS["utilities"] = "moengage-cohort"
RUN_SECONDS = 300


def program(name: str) -> str:
    """Find a program in the environments that `make` created, or else on the PATH."""
    meltano = Path(os.environ.get("MELTANO_VENV", ROOT / ".venv-meltano")) / "bin"
    folders = [str(Path(sys.executable).parent), str(meltano), os.environ.get("PATH", "")]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        message = f"{name} is not installed; make environments"
        raise RuntimeError(message)
    return found


def tap_settings(postgres: Postgres) -> dict[str, str | int]:
    """Return the configuration of tap-postgres."""
    names = ("host", "port", "user", "password", "database")
    return {name: getattr(postgres, name) for name in names}


def destination(moengage: Emulator) -> dict[str, str]:
    """Return the required settings of the target, for an emulator in this process."""
    return {
        "workspace_id": moengage.workspace_id,
        "data_api_key": moengage.data_api_key,
        "data_center": "01",
        "partner": "acme",
        "api_url": moengage.url,
    }


def plain_environment(home: Path) -> dict[str, str]:
    """Return a minimal environment: no proxy, and no writes outside `home`."""
    temporary = home / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LC_ALL": "C.UTF-8",
    }


class MeltanoProject:
    """The repository's `meltano.yml` in a separate directory.

    Its plugins have no `pip_url` there and name the installed programs, so that Meltano installs
    nothing; nothing else differs. Every command gets `environment` in addition.
    """

    def __init__(self, folder: Path, postgres: Postgres, api_url: str) -> None:
        self.folder = folder
        self.report = folder / "report.json"
        self.settings = yaml.safe_load((ROOT / "meltano.yml").read_text())
        for kind, name in PLUGINS.items():
            for plugin in self.settings["plugins"][kind]:
                plugin.pop("pip_url")
                plugin["executable"] = program(name)
        self.environment = plain_environment(folder / "home") | {
            "MELTANO_SEND_ANONYMOUS_USAGE_STATS": "false",
            "MELTANO_CLI_DISABLE_VERSION_CHECK": "true",
            "MELTANO_CLI_LOG_FORMAT": "uncolored",
            "TARGET_MOENGAGE_COHORT_API_URL": api_url,
            "TARGET_MOENGAGE_COHORT_REPORT_PATH": str(self.report),
        }
        for name, value in tap_settings(postgres).items():
            self.environment[f"TAP_POSTGRES_{name.upper()}"] = str(value)

    def configure(self, kind: str, **values: object) -> None:
        """Set keys of the extractor or loader, such as `config` or `metadata`."""
        self.settings["plugins"][kind][0].update(values)

    def meltano(self, *arguments: str, environment: str = "dev") -> subprocess.CompletedProcess:
        """Run Meltano and return its result."""
        text = yaml.safe_dump(self.settings, sort_keys=False)
        return self.meltano_with(text, *arguments, environment=environment)

    def meltano_with(
        self, text: str, *arguments: str, environment: str = "dev"
    ) -> subprocess.CompletedProcess:
        """Run Meltano with this text as `meltano.yml`; an empty environment is none."""
        chosen = f"--environment={environment}" if environment else "--no-environment"
        (self.folder / "meltano.yml").write_text(text)
        return run_guarded(
            [program("meltano"), chosen, *arguments],
            cwd=self.folder,
            env=self.environment,
            timeout=RUN_SECONDS,
        )

    def sync(self, environment: str = "dev") -> dict:
        """Run the tap and the target, and return the target's report."""
        self.report.unlink(missing_ok=True)
        done = self.meltano("run", *list(PLUGINS.values())[:2], environment=environment)
        if done.returncode:
            message = f"meltano run ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            raise RuntimeError(message)
        return json.loads(self.report.read_text())
