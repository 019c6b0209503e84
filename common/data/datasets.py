"""Find data sets by name or path: "hotdog" (downloaded), "demo" (drawn here), a folder, its zip, or a table."""

from __future__ import annotations

import hashlib
import logging
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pooch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from common.data import demo, tables, zips
from common.data.folder import BadImages, ImageData, read_folder
from common.data.images import USUAL, Decoding
from common.data.listing import fault, is_image
from common.system.caches import Cache, cache_folder
from common.system.errors import UserError
from common.system.files import user_path

DATASETS = {
    "hotdog": "the chapter's photographs, 2,000 to train and 800 to test, hot dogs and other food; downloaded once",
    "demo": "drawn pictures of the same job, 400 to train and 200 to test; made on this machine, no network needed",
}

HOTDOG_SHA1 = "fba480ffa8aa7e0febbb511d181409f899b9baa5"
# Plain http may follow https because nothing is opened whose SHA-1 is not the one above.
HOTDOG_URLS = (
    "https://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip",
    "http://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip",
)

_OTHER_WAYS = (
    "Try again later, name another copy with --data-url URL --data-sha1 SHA1, "
    "or a folder or zip on this machine with --data PATH. --data demo needs no network."
)

_PATHS = f"--data takes a folder, a .zip, or a table ({', '.join(tables.SUFFIXES)})."


def load(
    data: str,
    *,
    url: str | None = None,
    sha1: str | None = None,
    bad_images: BadImages = "error",
    train_limit: int | None = None,
    test_limit: int | None = None,
    cache: Path | None = None,
    progress: bool = True,
    short_side: int | None = None,
    split_seed: int = 0,
    zip_encoding: str | None = None,
    decoding: Decoding = USUAL,
) -> ImageData:
    """Find a data set, made or downloaded if need be, and list its samples.

    Downloads, unpacked zips and drawn images are kept in `cache` and made only once.

    Args:
        data: "hotdog", "demo", or the path of a folder, a zip or a table. A name in DATASETS means that data set even
            beside a folder of the same name; write "./hotdog" for the folder.
        url: Another place to download "hotdog" from; it needs `sha1`.
        sha1: The hex SHA-1 of the zip at `url`. A copy with another SHA-1 than the chapter's is named "hotdog@" and the
            first 8 digits.
        bad_images: As in `common.data.folder.read_folder`, like the limits.
        train_limit: Most training images over all classes; None for all.
        test_limit: Most test images over all classes; None for all.
        cache: Folder for what is made; None for `cache_folder()`.
        progress: Whether progress bars may be shown.
        short_side: As in `read_folder`.
        split_seed: The seed by which test images are held back where the data has none.
        zip_encoding: The encoding of names in a zip that are not UTF-8; None for none.
        decoding: As in `read_folder`.

    Returns:
        The samples and classes of the data set.

    Raises:
        UserError: There is no such data, no network, a wrong SHA-1, an unsafe or damaged zip, or something that
            `read_folder` refuses.
    """
    cache = Path(cache) if cache is not None else cache_folder()
    if data in DATASETS:
        name, root, zipped = _named(data, url, _source_sha1(data, url, sha1), cache, progress)
    else:
        _source_sha1(data, url, sha1)
        name, root, zipped = _at(data, zip_encoding, cache)
    try:
        found = read_folder(
            root,
            bad_images=bad_images,
            train_limit=train_limit,
            test_limit=test_limit,
            progress=progress,
            split_seed=split_seed,
            short_side=short_side,
            decoding=decoding,
        )
    except UserError as error:
        if zipped is None:
            raise
        raise UserError(f"In {zipped}, unpacked to {root}: {error}") from error
    return replace(found, name=name)


def _named(data: str, url: str | None, sha1: str, cache: Path, progress: bool) -> tuple[str, Path, str | None]:
    """Return the name of one of DATASETS, its folder, and the zip that this was unpacked from, None without one."""
    if data == "demo":
        return data, _demo(cache, progress), None
    name = data if sha1 == HOTDOG_SHA1 else f"{data}@{sha1[:8]}"
    return name, _hotdog((url,) if url else HOTDOG_URLS, sha1, cache, progress), url or HOTDOG_URLS[0]


def _at(data: str, zip_encoding: str | None, cache: Path) -> tuple[str, Path, str | None]:
    """Return the name of the data at a path, its folder or table, and its zip, None where it is none."""
    path = user_path("--data", data)
    if not path.exists():
        raise UserError(
            f"There is no {data}. --data takes {', '.join(DATASETS)}, or the path of a folder, zip or table."
        )
    encoding = zips.check_encoding(zip_encoding) if zip_encoding is not None else None
    if path.is_dir():
        return path.resolve().name, path, None
    if reason := fault(path):
        raise UserError(f"--data {data}: {reason}. {_PATHS}")
    if path.suffix.lower() in tables.SUFFIXES:
        return path.stem, path, None
    _check_archive(path)
    encoding = zips.name_encoding(path, encoding)
    return path.stem, _unpacked(path, _sha1(path), cache, encoding), str(path)


def _check_archive(path: Path) -> None:
    """Raise UserError where a file is certainly no zip, with what to do with it."""
    try:
        if zipfile.is_zipfile(path):
            return
        is_tar = tarfile.is_tarfile(path)
    except OSError as error:
        raise UserError(f"Can't read {path}: {error.strerror or error}.") from error
    if is_tar:
        raise UserError(f"{path} is a tar archive. Unpack it (tar xf {path}) and give --data the folder. {_PATHS}")
    if is_image(path.name):
        raise UserError(f"{path} is a single image. {_PATHS}")
    if path.suffix.lower() != ".zip":
        raise UserError(f"{path} is no folder, zip or table. {_PATHS}")


def _source_sha1(data: str, url: str | None, sha1: str | None) -> str:
    if data != "hotdog" and (url is not None or sha1 is not None):
        raise UserError(f"--data-url and --data-sha1 belong to --data hotdog, not to --data {data}.")
    if url is None and sha1 is not None:
        raise UserError("--data-sha1 belongs to --data-url: give both, or neither for the chapter's own copy.")
    if url is None:
        return HOTDOG_SHA1
    if sha1 is None:
        raise UserError(f"--data-url {url} needs --data-sha1, the SHA-1 of that zip: nothing is opened unchecked.")
    if not re.fullmatch(r"[0-9a-fA-F]{40}", sha1):
        raise UserError(f"--data-sha1 {sha1!r} is not a SHA-1: it takes 40 hexadecimal digits.")
    if not re.match(r"https?://", url):
        raise UserError(f"--data-url {url} is no http or https address. For a file on this machine use --data PATH.")
    return sha1.lower()


def _demo(cache: Path, progress: bool) -> Path:
    train, test, size, seed = demo.DEFAULTS
    name = f"v{demo.DEMO_VERSION}-{train}-{test}-{size}px-seed{seed}"
    return _make_once(
        cache, "demo", name, lambda folder: demo.render(folder, train, test, size, seed, progress=progress)
    )


def _hotdog(urls: tuple[str, ...], sha1: str, cache: Path, progress: bool) -> Path:
    downloads = cache / "downloads"
    return _make_once(
        cache, "unpacked", sha1, lambda folder: zips.unpack(_download(urls, sha1, downloads, progress), folder)
    )


def _unpacked(archive: Path, sha1: str, cache: Path, encoding: str | None) -> Path:
    name = sha1 if encoding is None else f"{sha1}-{encoding}"
    return _make_once(cache, "unpacked", name, lambda folder: zips.unpack(archive, folder, encoding))


def _sha1(path: Path) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"Can't read {path}: {error.strerror or error}.") from error
    return digest.hexdigest()


def _make_once(cache: Path, kind: str, name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, which `fill` writes first unless it is there, with an error that names a way out.

    Args:
        cache: The folder of all that is kept.
        kind: The folder in it.
        name: Name of the folder to make there.
        fill: Writes the content into the folder that it is given.

    Returns:
        The folder, which is whole.

    Raises:
        UserError: The folder cannot be written.
    """
    target = cache / kind / name
    try:
        return Cache(target.parent).get(name, fill)
    except OSError as error:
        raise UserError(
            f"Can't write {target}: {error.strerror or error}. "
            "Free space there, or set FINE_TUNING_CACHE to another folder."
        ) from error


def _download(urls: tuple[str, ...], sha1: str, folder: Path, progress: bool) -> Path:
    pooch.get_logger().setLevel(logging.WARNING)
    failures = []
    for url in urls:
        try:
            with _download_bar(progress) as bar:
                fetch = _Fetch(pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=30))
                return Path(pooch.retrieve(url, f"sha1:{sha1}", f"{sha1}.zip", folder, downloader=fetch))
        except OSError as error:  # what requests raises for network, time-out and HTTP status is one too
            failures.append(f"  {url}: {error}")
        except ValueError:
            failures.append(f"  {url}: {fetch.seen or 'not a usable address'}, expected {sha1}")
    raise UserError("\n".join(["The hot dog photographs could not be downloaded:", *failures, _OTHER_WAYS]))


class _Fetch:
    """A pooch downloader that remembers what came, because pooch deletes a file of the wrong SHA-1 at once."""

    def __init__(self, downloader: Callable[..., object]) -> None:
        self.downloader = downloader
        self.seen = ""

    def __call__(self, url: str, output_file: str, pooch_: object) -> None:
        self.downloader(url, output_file, pooch_)
        path = Path(output_file)
        with open(path, "rb") as file:
            start = file.read(256).lstrip().lower()
        what = "a web page instead of a zip" if start.startswith((b"<!doctype", b"<html")) else "another file"
        self.seen = f"the server sent {what} ({path.stat().st_size:,} bytes, SHA-1 {_sha1(path)})"


class _Bar:
    """The progress bar that pooch asks for, on top of rich's."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("downloading hotdog.zip", total=None)
        self._total = 0

    @property
    def total(self) -> int:
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        self._total = size
        self._progress.update(self._task, total=size or None)

    def update(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def reset(self) -> None:
        self._progress.reset(self._task, total=self._total or None)

    def close(self) -> None:
        self._progress.stop()


@contextmanager
def _download_bar(shown: bool) -> Iterator[_Bar]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        yield _Bar(progress)
