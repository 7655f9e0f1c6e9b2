"""A trial of a tap by Meltano: whether it can read its warehouse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import typing as t

from target_moengage_cohort.core.errors import SettingsError

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SECONDS = 120


class NotTriedError(Exception):
    """The tap cannot be tried here; the text says why."""


def try_tap(
    root: Path, tap: str, plugin: Mapping[str, t.Any] | None, streams: Sequence[str]
) -> str:
    """Let a tap discover its streams; return what it has found, or raise a `SettingsError`."""
    meltano = shutil.which("meltano")
    if meltano is None:
        msg = "meltano is not on the PATH"
        raise NotTriedError(msg)
    has_own_program = plugin is not None and "pip_url" not in plugin and "executable" in plugin
    is_installed = (root / ".meltano" / "extractors" / tap / "venv").exists()
    if not (is_installed or has_own_program):
        msg = f"{tap} is not installed"
        raise NotTriedError(msg)
    command = ["meltano", "invoke", "--no-install", tap, "--discover"]
    again = f"; to see why: {' '.join(command)}"
    try:
        done = subprocess.run(  # noqa: S603 - Meltano itself, as a person would run it
            [meltano, *command[1:]],
            cwd=root,
            env=os.environ | {"MELTANO_CLI_DISABLE_VERSION_CHECK": "true"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        found = {each["tap_stream_id"] for each in json.loads(done.stdout)["streams"]}
    except subprocess.TimeoutExpired:
        msg = f"{tap} found no streams within {_SECONDS} seconds{again}"
        raise SettingsError("tap_failed", msg) from None
    except (ValueError, KeyError, TypeError):
        msg = f"{tap} cannot discover its streams (exit code {done.returncode}){again}"
        raise SettingsError("tap_failed", msg) from None
    if missing := [each for each in streams if each not in found]:
        msg = f"{tap} has no stream {', '.join(map(repr, missing))}; check the names and the grants"
        raise SettingsError("stream_not_found", msg)
    return f"{tap} can be read and has all streams"
