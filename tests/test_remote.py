"""Sources, caches and outputs in object storage (a server of S3's protocol) and on the web."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, write_class_folders
from test_docs import commands_of, python_of, readers_python, run

import clipaudit
from benchmarks.s3_server import KEY_ID, SECRET, Store, s3_server
from clipaudit.errors import ClipAuditError, SourceError, UsageError
from clipaudit.remote import RemotePath, to_path
from clipaudit.samples import open_source
from clipaudit.samples.reader import ImageReader

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs", reason="no s3fs: pip install 'clipaudit[test]'")
pytest.importorskip("moto", reason="no moto: pip install 'clipaudit[test]'")

Run = Callable[..., subprocess.CompletedProcess[str]]
CLI = (sys.executable, "-m", "clipaudit")


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def bucket(store: Store, tmp_path: Path) -> RemotePath:
    """An empty bucket of the test's own."""
    name = f"test-{abs(hash(tmp_path)):x}"
    fsspec.filesystem("s3").mkdir(name)
    return RemotePath(f"s3://{name}")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, clipaudit.CleanIndex]:
    """150 digits in class folders, a fifth of them in a wrong one, and their audit on this machine."""
    folder = tmp_path_factory.mktemp("digits")
    truth = write_class_folders(folder / "images", 150, rate=0.2)
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "label_true"), *truth.items()])
    cache = clipaudit.embed(folder / "images", cache=folder / "cache", encoder=DIGITS).cache
    return folder / "images", clipaudit.select(cache, device="cpu")


def upload(local: Path, place: RemotePath) -> RemotePath:
    fsspec.filesystem("s3").put(str(local), str(place), recursive=local.is_dir())
    return place


def folders(root: Path, paths: list[str], out: Path, bucket: RemotePath) -> Any:
    return upload(root, bucket / "images")


def manifest(root: Path, paths: list[str], out: Path, bucket: RemotePath) -> Any:
    """In the bucket, beside the images."""
    write_manifest(out / "labels.csv", paths, "images/")
    upload(root, bucket / "images")
    return upload(out / "labels.csv", bucket / "labels.csv")


def manifest_of_urls(root: Path, paths: list[str], out: Path, bucket: RemotePath) -> Any:
    """On this machine, with the images' URLs in it."""
    write_manifest(out / "labels.csv", paths, f"{upload(root, bucket / 'images')}/")
    return out / "labels.csv"


def parquet(root: Path, paths: list[str], out: Path, bucket: RemotePath) -> Any:
    """Two files of a data set."""
    for number, some in enumerate((paths[:80], paths[80:])):
        images = [{"bytes": (root / path).read_bytes(), "path": None} for path in some]
        table = pa.table({"image": images, "label": [path.split("/")[0] for path in some]})
        pq.write_table(table, out / f"train-{number}.parquet", row_group_size=50)
        upload(out / f"train-{number}.parquet", bucket / f"train-{number}.parquet")
    return f"{bucket}/train-*.parquet"


def zipped(root: Path, paths: list[str], out: Path, bucket: RemotePath) -> Any:
    return upload(Path(shutil.make_archive(str(out / "images"), "zip", root)), bucket / "images.zip")


def tar_gz(root: Path, paths: list[str], out: Path, bucket: RemotePath) -> Any:
    with tarfile.open(out / "images.tar.gz", "w:gz") as archive:
        for path in paths:
            archive.add(root / path, path)
    return upload(out / "images.tar.gz", bucket / "images.tar.gz")


def shards(root: Path, paths: list[str], out: Path, bucket: RemotePath) -> Any:
    webdataset = pytest.importorskip("webdataset")
    for number in range(3):
        with webdataset.TarWriter(str(out / f"{number:02}.tar")) as writer:
            for path in paths[50 * number : 50 * number + 50]:
                content = {"png": (root / path).read_bytes(), "txt": path.split("/")[0]}
                writer.write({"__key__": path[:-4], **content})
        upload(out / f"{number:02}.tar", bucket / "shards" / f"{number:02}.tar")
    return f"{bucket}/shards/{{00..02}}.tar"


def saved_data_set(root: Path, paths: list[str], out: Path, bucket: RemotePath) -> Any:
    datasets = pytest.importorskip("datasets")
    names = sorted({path.split("/")[0] for path in paths})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    images = [{"bytes": (root / path).read_bytes(), "path": None} for path in paths]
    content = {"image": images, "label": [path.split("/")[0] for path in paths]}
    datasets.Dataset.from_dict(content, features=features).save_to_disk(out / "saved", num_shards=2)
    return upload(out / "saved", bucket / "saved")


def write_manifest(file: Path, paths: list[str], before: str) -> None:
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("path", "label"), *((f"{before}{path}", path.split("/")[0]) for path in paths)])


@pytest.mark.parametrize(
    "form",
    [folders, manifest, manifest_of_urls, parquet, zipped, tar_gz, shards, saved_data_set],
    ids=lambda form: form.__name__,
)
def test_every_form_gives_the_verdicts_of_the_local_folder(
    form: Callable[..., Any], bucket: RemotePath, digits: tuple[Path, clipaudit.CleanIndex], tmp_path: Path
) -> None:
    root, local = digits
    paths = local.table["id"].to_pylist()
    source = form(root, paths, tmp_path, bucket)
    summary = clipaudit.embed(source, cache=str(bucket / "cache"), encoder=DIGITS)
    assert (summary.n_samples, summary.n_unreadable) == (150, 0)
    index = clipaudit.select(str(bucket / "cache"), device="cpu")
    np.testing.assert_array_equal(index.labels(), local.labels())
    np.testing.assert_array_equal(index.is_clean, local.is_clean)
    reader = ImageReader(index.metadata)
    for row in (0, 70, 149):
        assert reader.read(index.table["id"][row].as_py()) == (root / paths[row]).read_bytes()


def test_a_whole_audit_in_a_bucket(
    bucket: RemotePath, digits: tuple[Path, clipaudit.CleanIndex], tmp_path: Path, run_cli: Run
) -> None:
    """By the command line alone, with nothing on this machine; no output or file shows the credentials."""
    upload(digits[0], bucket / "images")
    upload(digits[0].parent / "truth.csv", bucket / "truth.csv")
    model = ("--model", DIGITS.model, "--device", "cpu")
    said = []
    for words in (
        ("embed", f"{bucket}/images", "--cache", f"{bucket}/cache", *model),
        (
            "select",
            f"{bucket}/cache",
            "--out",
            f"{bucket}/out/clean.parquet",
            "--export",
            f"{bucket}/out/c.csv",
        ),
        ("report", f"{bucket}/out/clean.parquet", "--out", f"{bucket}/out/report.html"),
        ("evaluate", f"{bucket}/out/clean.parquet", "--truth", f"{bucket}/truth.csv", "--json"),
        ("review", f"{bucket}/out/clean.parquet", "--out", f"{bucket}/review"),
    ):
        finished = run_cli(*words)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        said.append(finished.stdout + finished.stderr)
    assert {path.name for path in (bucket / "out").iterdir()} == {"clean.parquet", "report.html", "c.csv"}
    assert {path.name for path in (bucket / "review").iterdir()} == {"review.html", "queue.csv"}
    assert not list(tmp_path.iterdir()), "nothing was written beside the bucket"
    index = clipaudit.read_index(str(bucket / "out" / "clean.parquet"))
    cache, out = str(bucket / "cache"), str(bucket / "p.npy")
    far, near = (clipaudit.pred_probs(index, place, cache=cache, device="cpu") for place in (out, None))
    np.testing.assert_array_equal(far, near)
    assert index.metadata.source == f"{bucket}/images"
    assert index.table["path"][0].as_py() == f"{bucket}/images/{index.table['id'][0].as_py()}"
    written = [
        path.read_bytes()
        for folder in ("out", "cache", "review")
        for path in (bucket / folder).iterdir()
        if path.is_file()
    ]
    for secret in (KEY_ID, SECRET):
        assert not any(secret in text for text in said)
        assert not any(secret.encode() in content for content in written)


def test_the_commands_of_the_docs(
    store: Store, digits: tuple[Path, clipaudit.CleanIndex], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits[0], tmp_path / "photos")
    fsspec.filesystem("s3").mkdir("bucket")
    upload(digits[0], RemotePath("s3://bucket/photos"))
    for command in commands_of("docs/remote.md"):
        run(command)
    for code in python_of("docs/remote.md"):
        exec(compile(readers_python(code), "docs/remote.md", "exec"), {"DIGITS": DIGITS})
    assert RemotePath("s3://bucket/audit/report.html").is_file()


def test_a_bucket_that_is_busy_three_times_then_works(bucket: RemotePath, store: Store, small_images: Path) -> None:
    upload(small_images, bucket / "images")
    store.busy = 3
    summary = clipaudit.embed(str(bucket / "images"), cache=str(bucket / "cache"), encoder=DIGITS)
    assert store.busy == 0
    assert (summary.n_samples, summary.n_unreadable, summary.complete) == (24, 0, True)


def test_a_key_that_vanishes_between_scan_and_read(
    bucket: RemotePath, store: Store, small_images: Path, monkeypatch: Any
) -> None:
    upload(small_images, bucket / "images")
    gone = next(path for path in sorted((bucket / "images").iterdir())[0].iterdir())

    def vanish(method: str, path: str) -> None:
        if method == "GET" and path.endswith(gone.name):
            monkeypatch.setattr(store, "before", lambda method, path: None)
            gone.unlink()

    monkeypatch.setattr(store, "before", vanish)
    first = clipaudit.embed(str(bucket / "images"), cache=str(bucket / "cache"), encoder=DIGITS)
    assert first.n_samples == 24
    assert [sample_id for sample_id, _ in first.unreadable] == ["/".join(gone.parts[-2:])]
    assert "cannot be opened" in first.unreadable[0][1]
    again = clipaudit.embed(str(bucket / "images"), cache=str(bucket / "cache"), encoder=DIGITS)
    assert (again.n_samples, again.n_unreadable, again.n_embedded) == (23, 0, 0)


def test_a_changed_object_is_embedded_again(bucket: RemotePath, small_images: Path) -> None:
    """Even in the same second and of the same size, by what the store says of its content."""
    upload(small_images, bucket / "images")
    first, second = (next(folder.iterdir()) for folder in sorted((bucket / "images").iterdir())[:2])
    clipaudit.embed(str(bucket / "images"), cache=str(bucket / "cache"), encoder=DIGITS)
    data = second.read_bytes()
    assert clipaudit.embed(str(bucket / "images"), cache=str(bucket / "cache"), encoder=DIGITS).n_embedded == 0
    first.upload(data)
    assert clipaudit.embed(str(bucket / "images"), cache=str(bucket / "cache"), encoder=DIGITS).n_embedded == 1


def without_credentials() -> dict[str, str]:
    gone = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return {name: value for name, value in os.environ.items() if name not in gone} | {"HOME": "/nonexistent"}


@pytest.mark.parametrize("words", [("embed", "s3://any/images"), ("embed", "{images}", "--cache", "s3://any/cache")])
def test_missing_credentials_are_told_before_any_work(
    words: tuple[str, ...], store: Store, small_images: Path, run_cli: Run
) -> None:
    given = [word.format(images=small_images) for word in words]
    finished = run_cli(*given, "--model", DIGITS.model, env=without_credentials())
    assert finished.returncode == 1
    assert "s3://any" in finished.stderr
    assert "credentials" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_an_output_that_cannot_be_is_refused_before_any_work(bucket: RemotePath, small_images: Path) -> None:
    upload(small_images, bucket / "images")
    for cache, words in (
        ("s3://no-such-bucket/cache", "there is no s3://no-such-bucket"),
        ("https://localhost/cache", "nothing can be written to the web"),
        (f"{bucket}/images", "is the same file as"),
    ):
        with pytest.raises(UsageError, match=words):
            clipaudit.embed(str(bucket / "images"), cache=cache, encoder=DIGITS)


def test_what_needs_a_folder_of_this_machine_says_so(bucket: RemotePath, noisy_index: clipaudit.CleanIndex) -> None:
    with pytest.raises(UsageError, match="links are for files of this machine"):
        clipaudit.export(noisy_index, str(bucket / "clean"))
    with pytest.raises(UsageError, match="needs a folder of this machine"):
        clipaudit.train(noisy_index, out=str(bucket / "run"))


@pytest.mark.parametrize(
    "url",
    ["s3://user:hunter2@bucket/x", "https://host/x.zip?X-Amz-Signature=hunter2", "az://c/x?sig=hunter2"],
)
def test_an_url_with_a_secret_in_it_is_refused_without_showing_it(url: str, run_cli: Run) -> None:
    finished = run_cli("embed", url)
    assert finished.returncode == 2
    assert "hunter2" not in finished.stdout + finished.stderr


def test_a_store_whose_library_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r"pip install 'clipaudit\[gcs\]'"):
        open_source("gs://bucket/photos")


def test_nothing_there(bucket: RemotePath) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_source(f"{bucket}/photos")


def test_nothing_falls_through_to_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a folder is named like a store, an URL still means the store, and an absolute path the folder."""
    (tmp_path / "memory:" / "box").mkdir(parents=True)
    (tmp_path / "memory:" / "box" / "x.txt").write_text("here")
    monkeypatch.chdir(tmp_path)
    far, near = to_path("memory://box/x.txt"), to_path(f"{tmp_path}/memory:/box/x.txt")
    assert not far.exists()
    assert near.read_text() == "here"
    with pytest.raises(OSError, match="another machine"):
        open(far)  # noqa: PTH123, SIM115 (what a library would do)


def test_killed_in_the_middle_it_goes_on(bucket: RemotePath, tmp_path: Path) -> None:
    """A cache in a bucket has whole parts only; the next run does the rest."""
    truth = write_class_folders(tmp_path / "images", 2500)
    images = [{"bytes": (tmp_path / "images" / path).read_bytes(), "path": None} for path in truth]
    pq.write_table(pa.table({"image": images, "label": [*truth.values()]}), tmp_path / "digits.parquet")
    source, cache = upload(tmp_path / "digits.parquet", bucket / "digits.parquet"), bucket / "cache"
    words = ("embed", source, "--cache", cache, "--model", DIGITS.model, "--device", "cpu", "--batch-size", "8")
    process = subprocess.Popen([*CLI, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any((cache / "parts").glob("*.parquet")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    summary = clipaudit.embed(str(source), cache=str(cache), encoder=DIGITS)
    assert (summary.n_samples, summary.complete, summary.n_damaged_parts) == (2500, True, 0)
    assert 0 < summary.n_embedded < 2500
    assert len(clipaudit.select(str(cache), device="cpu")) == 2500


class Web(SimpleHTTPRequestHandler):
    """Files on the web, from a server that may be busy, and that may not know ranges."""

    busy = 0
    knows_ranges = True

    def do_GET(self) -> None:
        if type(self).busy:
            type(self).busy -= 1
            self.send_error(503)
            return
        asked = self.headers.get("Range")
        file = Path(self.translate_path(self.path))
        if not asked or not self.knows_ranges or not file.is_file():
            super().do_GET()
            return
        data = file.read_bytes()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def web(folder: Path, **settings: Any) -> Iterator[str]:
    handler = type("Handler", (Web,), settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_images_and_archives_on_the_web(small_images: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "images"), "zip", small_images)
    with web(tmp_path, busy=3) as url:
        paths = sorted(path.relative_to(small_images).as_posix() for path in small_images.glob("*/*"))
        write_manifest(tmp_path / "labels.csv", paths, f"{url}/images/")
        for source in (tmp_path / "labels.csv", f"{url}/labels.csv", f"{url}/images.zip"):
            summary = clipaudit.embed(
                source, cache=tmp_path / f"cache-{Path(source).name}-{len(str(source))}", encoder=DIGITS
            )
            assert (summary.n_samples, summary.n_unreadable) == (24, 0)


def test_a_web_server_without_ranges(small_images: Path, tmp_path: Path) -> None:
    """Gives images, which are read whole; of an archive it says why not."""
    shutil.make_archive(str(tmp_path / "images"), "zip", small_images)
    with web(tmp_path, knows_ranges=False) as url:
        (image,) = list(small_images.glob("*/*"))[:1]
        far = to_path(f"{url}/{image.relative_to(tmp_path).as_posix()}")
        assert far.read_bytes() == image.read_bytes()
        with pytest.raises(ClipAuditError, match="only whole"):
            open_source(f"{url}/images.zip")
