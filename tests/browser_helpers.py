"""A report in a browser: what the browser tests do and look at."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

# What the reader's system prefers.
LIGHT = {"prefers-color-scheme": "light", "prefers-reduced-motion": "reduce"}
DARK = {**LIGHT, "prefers-color-scheme": "dark"}

# The longest that a page may take to react; machines that run tests are shared.
PATIENCE = 20.0

# Texts whose colour is too near to what is behind them: the criterion of WCAG 2.2, level AA.
CONTRASTS = """
const parse = (text) => {
  const [a, b, c, alpha = 1] = text.match(/-?[0-9.]+(e-?[0-9]+)?/g).map(Number);
  return (text.startsWith("color(") ? [a, b, c] : [a / 255, b / 255, c / 255]).concat(alpha);
};
const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const color = parse(getComputedStyle(at).backgroundColor);
    if (color[3] > 0) return color;
  }
  return [1, 1, 1];
};
const low = [];
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!own || !node.checkVisibility() || node.matches("script, option, :disabled")) continue;
  const style = getComputedStyle(node);
  const [a, b] = [luminance(parse(node instanceof SVGElement ? style.fill : style.color)), luminance(behind(node))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) low.push(`${node.tagName}.${node.className} ${node.textContent.slice(0, 30)} ${ratio.toFixed(2)}`);
}
return low;
"""


class Report:
    """A report in a browser."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def open(self, path: Path) -> None:
        self.driver.get(path.as_uri())

    def find(self, selector: str) -> WebElement:
        found: WebElement = self.driver.find_element(By.CSS_SELECTOR, selector)
        return found

    def all(self, selector: str) -> list[WebElement]:
        found: list[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def script(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def click(self, target: str | WebElement) -> None:
        """A real click, in the middle of the screen, where no bar lies over it."""
        element = self.find(target) if isinstance(target, str) else target
        self.script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        element.click()

    def choose(self, control: str, value: str) -> None:
        """Set a filter as a user would, which fires its events."""
        code = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        self.script(code, self.find(control), value)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def ids(self) -> list[str]:
        return [card.text for card in self.all(".card .path")]

    def current(self) -> str:
        return self.text('.card[aria-current="true"] .path')

    def until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < end, "the page did not react"
            time.sleep(0.05)
        return value

    def export(self) -> Path:
        """Press the button and wait for the file."""
        for old in self.downloads.iterdir():
            old.unlink()
        self.click("#export")
        file = self.downloads / "marks.csv"
        self.until(lambda: file.exists() and file.stat().st_size)
        return file

    def faults(self) -> list[str]:
        """What the console complains about, and what the page has asked the network for."""
        console = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "DEBUG"]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        foreign = [url for url in sent if not url.startswith(("file:", "data:", "blob:"))]
        files = [url for url in sent if url.startswith("file:")]
        return console + foreign + [url for url in files if not url.split("#")[0].endswith(".html")]
