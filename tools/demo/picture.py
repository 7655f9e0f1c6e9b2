"""Take README's picture of the emulator's page after a demo's two runs (`make picture`)."""

import sys
import tempfile
from pathlib import Path

from tests.support.browser import open_browser
from tests.support.emulator import EmulatorProcess
from tests.support.postgres import Postgres
from tests.support.project import ROOT, MeltanoProject
from tools.demo.shop import live_a_day, open_shop

PICTURE = ROOT / "docs" / "images" / "emulator.png"
SIZE = {"width": 1120, "height": 640}


def main(picture: Path = PICTURE) -> None:
    """Sync the demo's cohorts twice, then write a PNG of the page."""
    with (
        tempfile.TemporaryDirectory(prefix="picture-") as folder,
        Postgres() as postgres,
        EmulatorProcess() as emulator,
    ):
        open_shop(postgres)
        project = MeltanoProject(Path(folder), postgres, emulator.url)
        project.environment["TARGET_MOENGAGE_COHORT_DATA_API_KEY"] = emulator.data_api_key
        project.sync(environment="demo")
        live_a_day(postgres)
        project.sync(environment="demo")
        with open_browser(Path(folder) / "profile") as browser:
            page = browser.new_page()
            page.set_viewport_size(SIZE)
            page.goto(emulator.url)
            page.locator("#requests tbody tr").first.wait_for()
            page.screenshot(path=picture)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
