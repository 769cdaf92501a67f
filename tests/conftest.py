"""What the tests share: the shipped model, real images in every form that a source can have, the real command line."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

import clipaudit
from clipaudit import EncoderOptions
from clipaudit.demo import MODEL
from clipaudit.demo.digits import CLASS_NAMES, as_picture, load_split

if TYPE_CHECKING:
    from browser_helpers import Report

# Several test processes share few cores; one thread each is faster than many that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A timing is never a test: machines that run tests are shared.
settings.register_profile("clipaudit", deadline=None)
settings.load_profile("clipaudit")
# No model hub is reachable: say so at once instead of retrying.
os.environ["HF_HUB_OFFLINE"] = "1"

DIGITS = EncoderOptions(model=str(MODEL), device="cpu", precision="float32")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real images with human label noise, which do not belong to the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CLIPAUDIT_DATA", default))
    if not (folder / "cifar10" / "train.parquet").exists():
        pytest.skip(f"no data in {folder}: set CLIPAUDIT_DATA to the folder that holds cifar10/train.parquet")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked with `cuda` where there is no such device."""
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def write_class_folders(root: Path, n: int, *, seed: int = 0, rate: float = 0.0) -> dict[str, str]:
    """Digits as ROOT/CLASS/number.png; returns the true class of each id, in the order of a source."""
    split, generator = load_split(), np.random.default_rng(seed)
    chosen = generator.choice(len(split.audit_labels), n, replace=n > len(split.audit_labels))
    truth = {}
    for number, row in enumerate(chosen):
        true = int(split.audit_labels[row])
        given = (true + int(generator.integers(1, 10))) % 10 if generator.random() < rate else true
        path = root / CLASS_NAMES[given] / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        as_picture(split.audit_images[row]).save(path)
        truth[path.relative_to(root).as_posix()] = CLASS_NAMES[true]
    return dict(sorted(truth.items(), key=lambda item: item[0].split("/")))


@pytest.fixture(scope="session")
def noisy_digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """600 digits in class folders, a fifth of them in a wrong one, and the truth."""
    root = tmp_path_factory.mktemp("noisy") / "images"
    truth = write_class_folders(root, 600, rate=0.2)
    with (root.parent / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label_true"), *((f"images/{name}", label) for name, label in truth.items())]
        )
    return root, truth


@pytest.fixture(scope="session")
def noisy_cache(noisy_digits: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The noisy digits, embedded."""
    return clipaudit.embed(noisy_digits[0], cache=tmp_path_factory.mktemp("cache") / "digits", encoder=DIGITS).cache


@pytest.fixture(scope="session")
def noisy_index(noisy_cache: Path) -> clipaudit.CleanIndex:
    """The noisy digits, audited with the paper's defaults."""
    return clipaudit.select(noisy_cache, device="cpu")


@pytest.fixture
def small_images(tmp_path: Path) -> Path:
    """24 digits in class folders, few enough to damage one by one."""
    write_class_folders(tmp_path / "images", 24)
    return tmp_path / "images"


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own, with the test's folder as working directory."""

    def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "clipaudit", *map(str, words)]
        settings = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300, **options}
        return subprocess.run(command, check=False, **settings)

    return run


def any_image(size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A picture with some structure."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8))


@contextmanager
def without_rights() -> Iterator[None]:
    """For a while nobody special, as root may read everything; skips where nobody else may read the checkout."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        if not os.access(MODEL / "config.json", os.R_OK, effective_ids=True):
            pytest.skip(f"{MODEL} lies in a folder that only root may enter")
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Chromium, headless."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install 'clipaudit[test]'")
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no browser: install chromium and chromedriver (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield started
    started.quit()


@pytest.fixture
def report(driver: Any, tmp_path: Path) -> Iterator[Report]:
    """A page in the browser, without marks of earlier tests, on a screen of 1280 x 900 in light colours."""
    from browser_helpers import LIGHT, Report

    downloads = tmp_path / "downloads"
    downloads.mkdir()
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    features = [{"name": name, "value": value} for name, value in LIGHT.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    screen = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.get_log("browser")
    driver.get_log("performance")
    opened = Report(driver, downloads)
    yield opened
    opened.script("localStorage.clear()")
