"""The target's definition for the Meltano Hub, generated from `--about`; for `make hub`."""

import json
import subprocess
import sys
import typing as t
from pathlib import Path

import yaml

from target_moengage_cohort.settings.about import setting_kind

DEFINITION = Path(__file__).parent.parent / "docs" / "meltano-hub.yml"
HEAD = """\
# The definition of the target for the Meltano Hub, generated from --about by `make hub`.
# Its place there is _data/meltano/loaders/target-moengage-cohort/VARIANT.yml. Add `repo`, and
# `logo_url` with the logo's file, once the repository is published, and replace `variant` with its
# owner: `original` is Meltano's own name for the only variant.
"""
# Meltano always sets a value of the definition, and this one means more when set explicitly.
WITHOUT_VALUE = {"uid_column"}

PREREQUISITES = """\
You need the workspace ID, the Data API key and the data center of your MoEngage workspace, with the
Cohort Sync API enabled, and a partner name: choose one for this integration and never change it.
"""
NEXT_STEPS = """\
1. Map streams to cohorts in `meltano.yml`:

   ```yaml
   config:
     cohorts:
       public-vip_users:
         cohort_id: vip
         cohort_name: VIP users
   ```

1. Preview the sync. A dry run sends nothing and writes no state:

   ```bash
   TARGET_MOENGAGE_COHORT_DRY_RUN=true meltano run <your tap> target-moengage-cohort
   ```
"""
PREAMBLE = """\
With the sync modes `mirror` and `one_time`, the target keeps a ledger of the members that MoEngage
has accepted. If runs start in a fresh container, set `ledger_uri` to a directory that outlives the
container, or to a PostgreSQL database.
"""


def about() -> dict[str, t.Any]:
    """Return the output of `--about` of the installed target."""
    command = [sys.executable, "-m", "target_moengage_cohort", "--about", "--format=json"]
    done = subprocess.run(command, capture_output=True, check=True)
    return json.loads(done.stdout)


def definition(about: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the Hub's definition of the loader."""
    name = about["name"]
    return {
        "capabilities": sorted(about["capabilities"]),
        "description": about["description"],
        "domain_url": "https://www.moengage.com",
        "executable": name,
        "keywords": ["meltano_sdk", "reverse_etl"],
        "label": "MoEngage Cohort Sync",
        "maintenance_status": "beta",
        "name": name,
        "namespace": name.replace("-", "_"),
        "next_steps": NEXT_STEPS,
        "pip_url": name,
        "prereq": PREREQUISITES,
        "quality": "silver",  # by the Hub's rule: made with the SDK, with few users so far
        "settings": [setting(*item) for item in about["settings"]["properties"].items()],
        "settings_group_validation": [about["settings"]["required"]],
        "settings_preamble": PREAMBLE,
        "supported_python_versions": about["supported_python_versions"],
        "variant": "original",
    }


def setting(name: str, schema: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the Hub's definition of a setting, from its JSON schema."""
    made = {
        "description": schema["description"],
        "kind": setting_kind(name, schema),
        "label": schema["title"],
        "name": name,
    }
    default = schema.get("default")
    if "enum" in schema:
        values = sorted(schema["enum"], key=lambda value: (value != default, value))
        made["options"] = [
            {"label": value.replace("_", " ").capitalize(), "value": value} for value in values
        ]
    if schema.get("secret"):
        made["sensitive"] = True
    if name in WITHOUT_VALUE:
        made["placeholder"] = default
    elif default not in (None, {}):
        made["value"] = default
    return made


class Dumper(yaml.SafeDumper):
    """A YAML dumper that writes multi-line strings as blocks."""


def _string(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style="|" if "\n" in value else ""
    )


Dumper.add_representer(str, _string)


def text() -> str:
    """Return the text of the file."""
    return HEAD + yaml.dump(definition(about()), Dumper=Dumper, allow_unicode=True, width=99)


if __name__ == "__main__":
    DEFINITION.write_text(text())
