"""The README's picture: the report of the demo, light and dark.

    python docs/picture.py

Needs what the tests of the report need: selenium, and Chromium with its driver. Writes docs/report-light.png and
docs/report-dark.png.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

DOCS = Path(__file__).parent
# In CSS pixels; so many of the picture lie along each.
WIDTH, HEIGHT, DENSITY = 1000, 1180, 1.25


def browser() -> Chrome:
    """Chromium without a window."""
    options = ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    # Named, or selenium looks for a newer one in the network.
    return Chrome(options=options, service=Service(which("chromedriver")))


def main() -> None:
    """Run the demo, and take both pictures of its report."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "clipaudit", "demo", f"{folder}/demo"], check=True)
        driver = browser()
        try:
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": DENSITY, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            for scheme in ("light", "dark"):
                media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
                driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
                driver.get((Path(folder) / "demo" / "report.html").as_uri())
                driver.save_screenshot(str(DOCS / f"report-{scheme}.png"))
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
