"""The wheel holds the package, its prompts and the demo's model, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_what_runs_and_nothing_else(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*words, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("clipaudit-*-py3-none-any.whl")
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    package = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in package} == {"clipaudit"}
    tracked = subprocess.run(["git", "ls-files", "clipaudit"], cwd=ROOT, check=True, capture_output=True, text=True)
    prompts = {f"clipaudit/prompt_sets/{file.name}" for file in (ROOT / "prompts").iterdir()}
    assert package == set(tracked.stdout.split()) | prompts
    assert any(name.startswith("clipaudit/demo") and name.endswith(".safetensors") for name in package)
    assert "Requires-Python: >=3.10" in metadata
