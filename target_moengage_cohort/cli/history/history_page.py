"""The history page: one document that a browser shows without further requests."""

from __future__ import annotations

import typing as t
from importlib.resources import files

import msgspec

from target_moengage_cohort.core.errors import SettingsError

_MISSING = (
    "--html requires plotly, which is not installed: pip install 'target-moengage-cohort[page]'"
)


def plotting_script() -> str:
    """Return the plotting script that plotly's package contains."""
    try:
        from plotly.offline import get_plotlyjs  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "plotly":
            raise SettingsError("missing_extra", _MISSING) from None
        raise
    return str(get_plotlyjs())


def document(script: str, figures: dict[str, t.Any]) -> bytes:
    """Return the page with a script that draws, and the figures to draw."""
    data = msgspec.json.encode(figures).decode()
    parts = {
        "<style></style>": f"<style>{_text('history_page.css')}</style>",
        # Names in it may contain the end of a script.
        '"figures">': f'"figures">{data.replace("<", chr(92) + "u003c")}',
        "<script></script>": f"<script>{script}</script>\n"
        f"<script>{_text('history_page.js')}</script>",
    }
    page = _text("history_page.html")
    for place, content in parts.items():
        before, _, after = page.partition(place)
        page = before + content + after
    return page.encode()


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
