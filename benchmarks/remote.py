"""How much reading from object storage holds `embed` back: images/s and waiting share beside a local folder.

    python -m benchmarks.remote [--images 256] [--pause 0.03] [--rounds 2] [--json FILE]

The same JPEG files and the same model as in `benchmarks.embed_speed`, once in a folder and once in a bucket of a server
of S3's protocol (moto) on this machine, which holds every answer back for `--pause` seconds, as a round trip to a far
store takes. The server is a process of its own and needs a share of the same cores: a real store needs none.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.embed_speed import GEOMETRIES, make_images, make_model
from benchmarks.s3_server import s3_server


def serve(pause: float) -> None:
    """Serve until standard input ends; the first line of standard output says how to find the server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server() as store:
        store.pause = pause
        print(json.dumps(store.environment), flush=True)
        sys.stdin.read()


def measure(model: str, images: str, batch: int, workers: int | None) -> dict[str, float]:
    """One run of `embed`; its own clock leaves out loading the model."""
    import clipaudit

    with tempfile.TemporaryDirectory() as cache:
        encoder = clipaudit.EncoderOptions(model, batch_size=batch, device="cpu")
        summary = clipaudit.embed(images, cache=Path(cache) / "c", encoder=encoder, workers=workers)
    assert not summary.n_unreadable
    return {
        "images_per_second": summary.n_embedded / summary.seconds,
        "waiting": summary.seconds_waiting / summary.seconds,
    }


def contender(words: tuple[object, ...], environment: dict[str, str]) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.remote", "--contender", *map(str, words)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    result: dict[str, float] = json.loads(finished.stdout)
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=400, help="edge of the JPEG files, pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pause", type=float, default=0.03, help="seconds that each answer of the store takes")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each; the best one counts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contender", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.pause)
        return
    if options.contender:
        model, images, batch, workers = options.contender
        print(json.dumps(measure(model, images, int(batch), int(workers) or None)))
        return
    command = [sys.executable, "-m", "benchmarks.remote", "--serve", "--pause", str(options.pause)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout
        assert server.stdin
        environment = json.loads(server.stdout.readline())
        os.environ.update(environment)
        model, images = Path(folder) / "model", Path(folder) / "images"
        make_model(model, GEOMETRIES["vit-b-32"])
        make_images(images, options.images, options.size)
        import fsspec

        store = fsspec.filesystem("s3")
        store.mkdir("photos")
        store.put(str(images), "photos/images", recursive=True)
        runs = {
            "local folder": (model, images, options.batch, 0),
            "s3://, as it is by default": (model, "s3://photos/images", options.batch, 0),
            "s3://, one image at a time (`--workers 1`)": (model, "s3://photos/images", options.batch, 1),
        }
        rounds = [{name: contender(words, {}) for name, words in runs.items()} for _ in range(options.rounds)]
        server.stdin.close()
    # The best of each: whatever else the machine does can only take away.
    best = {name: max((row[name] for row in rounds), key=lambda run: run["images_per_second"]) for name in runs}
    if options.json:
        options.json.write_text(json.dumps(best, indent=1) + "\n")
    table = Table("source", "images/s", "of the local folder", "waiting for images")
    for name, run in best.items():
        share = run["images_per_second"] / best["local folder"]["images_per_second"]
        table.add_row(name, f"{run['images_per_second']:.1f}", f"{share:.0%}", f"{run['waiting']:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
