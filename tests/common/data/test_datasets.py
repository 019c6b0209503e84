import hashlib
import io
import multiprocessing
import os
import stat
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

import common
from common.data import datasets, demo, zips
from common.data.datasets import load
from common.system.caches import cache_folder
from common.system.errors import UserError

WRONG = "0" * 40


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "JPEG")
    return buffer.getvalue()


FOLDERS = [f"hotdog/{split}/{name}" for split in ("train", "test") for name in ("hotdog", "not-hotdog")]
LAYOUT = [f"{folder}/{i}.jpg" for folder in FOLDERS for i in (0, 1)]


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


GOOD = zip_of(dict.fromkeys(LAYOUT, jpeg()))
GOOD_SHA1 = hashlib.sha1(GOOD).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with self.server.lock:
            self.server.gets += 1
        time.sleep(self.server.delay)
        status, body, announced = self.server.answers.get(self.path, (404, b"<!DOCTYPE html><h1>gone</h1>", None))
        self.send_response(status)
        self.send_header("Content-Length", str(announced or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.gets, served.delay, served.lock = 0, 0.0, threading.Lock()
    served.answers = {
        "/hotdog.zip": (200, GOOD, None),
        "/cut.zip": (200, GOOD[:500], len(GOOD)),
        "/page.zip": (200, b"\n<!DOCTYPE html><p>Please sign in", None),
    }
    served.url = f"http://127.0.0.1:{served.server_port}"
    thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


def get(server, cache, page="/hotdog.zip", sha1=GOOD_SHA1, **options):
    return load("hotdog", url=server.url + page, sha1=sha1, cache=cache, progress=False, **options)


def nothing_kept(cache: Path) -> bool:
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_download_once_then_from_the_cache(server, tmp_path):
    first = get(server, tmp_path)
    assert first.classes == ("hotdog", "not-hotdog")
    assert len(first.train) == len(first.test) == 4
    assert first.name == f"hotdog@{GOOD_SHA1[:8]}"
    assert first.train[0].name == "train/hotdog/0.jpg"
    server.shutdown()
    assert get(server, tmp_path, sha1=GOOD_SHA1.upper()) == first
    assert server.gets == 1


def test_a_good_download_survives_a_lost_unpacked_folder(server, tmp_path):
    first = get(server, tmp_path)
    first.root.parent.rename(tmp_path / "lost")
    assert get(server, tmp_path).train == first.train
    assert server.gets == 1


def test_a_damaged_cached_download_is_fetched_again(server, tmp_path):
    (tmp_path / "downloads").mkdir()
    save(tmp_path / "downloads" / f"{GOOD_SHA1}.zip", GOOD[:-9])
    assert len(get(server, tmp_path).train) == 4
    assert server.gets == 1


def test_a_wrong_hash_is_refused_and_the_good_file_stays(server, tmp_path):
    good = get(server, tmp_path)
    with pytest.raises(UserError, match=f"another file .*SHA-1 {GOOD_SHA1}.*expected {WRONG}"):
        get(server, tmp_path, sha1=WRONG)
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == [f"{GOOD_SHA1}.zip"]
    assert get(server, tmp_path) == good


@pytest.mark.parametrize(
    ("page", "message"),
    [("/cut.zip", "hotdog|Incomplete|bytes"), ("/page.zip", "a web page instead of a zip"), ("/none.zip", "404")],
)
def test_failed_downloads_say_what_to_do_and_leave_nothing(server, tmp_path, page, message):
    with pytest.raises(UserError, match=message) as caught:
        get(server, tmp_path, page)
    assert all(option in str(caught.value) for option in ("--data-url", "--data-sha1", "--data PATH", "--data demo"))
    assert nothing_kept(tmp_path)
    assert list(tmp_path.rglob("*.partial")) == []


def test_no_network_tries_both_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(datasets, "HOTDOG_URLS", ("http://127.0.0.1:9/a.zip", "http://127.0.0.1:9/b.zip"))
    with pytest.raises(UserError, match=r"(?s)/a\.zip: .*/b\.zip: .*--data PATH"):
        load("hotdog", cache=tmp_path, progress=False)


def test_the_second_address_serves_when_the_first_fails(server, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "HOTDOG_URLS", (server.url + "/none.zip", server.url + "/hotdog.zip"))
    monkeypatch.setattr(datasets, "HOTDOG_SHA1", GOOD_SHA1)
    assert load("hotdog", cache=tmp_path, progress=False).name == "hotdog"


def _load_in_process(url, cache, results):
    results.put(len(load("hotdog", url=url, sha1=GOOD_SHA1, cache=cache, progress=False).train))


def test_two_processes_download_once(server, tmp_path):
    server.delay = 0.3
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    both = [spawn.Process(target=_load_in_process, args=(server.url + "/hotdog.zip", tmp_path, results)) for _ in "ab"]
    for process in both:
        process.start()
    assert [results.get(timeout=60), results.get(timeout=60)] == [4, 4]
    for process in both:
        process.join()
    assert server.gets == 1


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("hotdog", {"url": "http://127.0.0.1:9/a.zip"}, "needs --data-sha1"),
        ("hotdog", {"sha1": GOOD_SHA1}, "--data-sha1 belongs to --data-url"),
        ("hotdog", {"url": "http://127.0.0.1:9/a.zip", "sha1": "abc"}, "40 hexadecimal digits"),
        ("hotdog", {"url": "file:///a.zip", "sha1": GOOD_SHA1}, "no http or https address"),
        ("demo", {"url": "http://127.0.0.1:9/a.zip", "sha1": GOOD_SHA1}, "belong to --data hotdog"),
        ("no/such/place", {}, "There is no no/such/place. --data takes hotdog, demo, or the path"),
    ],
)
def test_options_that_do_not_fit(tmp_path, data, options, message):
    with pytest.raises(UserError, match=message):
        load(data, cache=tmp_path / "cache", progress=False, **options)
    assert not (tmp_path / "cache").exists()


def test_a_folder_and_a_zip_of_ones_own(tmp_path, monkeypatch):
    path = save(tmp_path / "mine.zip", GOOD)
    zipped = load(str(path), cache=tmp_path / "cache", test_limit=2, progress=False)
    assert zipped.name == "mine"
    assert len(zipped.test) == 2
    assert zipped.root.is_relative_to(tmp_path / "cache")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    folder = load("./hotdog", cache=tmp_path / "unused", progress=False)
    assert folder.name == "hotdog"
    assert folder.root.resolve() == tmp_path / "hotdog"
    assert not (tmp_path / "unused").exists()


def test_a_zip_is_unpacked_once_and_again_when_it_changes(tmp_path):
    path = save(tmp_path / "mine.zip", GOOD)
    first = load(str(path), cache=tmp_path / "cache", progress=False)
    before = first.train[0].path.stat().st_mtime_ns
    assert load(str(path), cache=tmp_path / "cache", progress=False).train[0].path.stat().st_mtime_ns == before
    save(path, zip_of({**dict.fromkeys(LAYOUT, jpeg()), "hotdog/train/hotdog/new.jpg": jpeg()}))
    assert len(load(str(path), cache=tmp_path / "cache", progress=False).train) == 5


def test_a_zip_without_the_layout_is_named(tmp_path):
    path = save(tmp_path / "mine.zip", zip_of({"cats/a.jpg": jpeg()}))
    with pytest.raises(UserError, match=r"In .*mine\.zip, unpacked to .*has only one class, cats"):
        load(str(path), cache=tmp_path / "cache", progress=False)


def zip_in(encoding: str, marked: bool = False) -> bytes:
    """Two classes, cat and dog in Chinese, with names in an encoding that the zip does not tell unless `marked`."""
    names = [f"{split}/{name}/{i}.jpg" for split in ("train", "test") for name in ("猫", "狗") for i in (0, 1)]
    if marked:
        return zip_of(dict.fromkeys(names, jpeg()))
    stand_in = {name: f"{number:0{len(name.encode(encoding))}d}" for number, name in enumerate(names)}
    content = zip_of(dict.fromkeys(stand_in.values(), jpeg()))
    for name, ascii_name in stand_in.items():
        content = content.replace(ascii_name.encode(), name.encode(encoding))
    return content


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (zip_in("gbk"), "gbk"), (zip_in("gbk"), "GB2312"), (zip_in("shift_jis"), "shift_jis"), (zip_in("utf-8"), None),
        (zip_in("", marked=True), None), (zip_in("", marked=True), "gbk"),
    ],
)  # fmt: skip
def test_names_that_are_not_marked_as_utf_8(tmp_path, content, encoding):
    path = save(tmp_path / "pets.zip", content)
    data = load(str(path), cache=tmp_path / "cache", progress=False, zip_encoding=encoding)
    assert data.classes == ("狗", "猫")
    assert len(data.train) == 4


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        (None, r"(?s)not UTF-8\. The first would read, with\n.*--zip-encoding gbk: train/猫/0\.jpg"),
        ("ascii", r"(?s)holds names that are not ascii\. .*--zip-encoding gbk: train/猫/0\.jpg"),
        ("klingon", "--zip-encoding klingon: no such encoding"),
        ("base64", "--zip-encoding base64: no such encoding"),
        ("", "--zip-encoding : no such encoding"),
    ],
)
def test_names_in_an_unknown_encoding_never_become_classes(tmp_path, encoding, message):
    path = save(tmp_path / "pets.zip", zip_in("gbk"))
    with pytest.raises(UserError, match=message):
        load(str(path), cache=tmp_path / "cache", progress=False, zip_encoding=encoding)
    assert not (tmp_path / "cache").exists()


def test_what_is_no_zip_is_named_as_what_it_is(tmp_path):
    (tmp_path / "photos").mkdir()
    for suffix, mode in ((".tar.gz", "w:gz"), (".tar", "w"), (".tgz", "w:gz")):
        with tarfile.open(tmp_path / f"photos{suffix}", mode) as archive:
            archive.add(tmp_path / "photos", "photos")
    save(tmp_path / "cat.jpg", jpeg())
    save(tmp_path / "photos.7z", b"7z\xbc\xaf")
    os.mkfifo(tmp_path / "pipe.zip")
    for name, message in {
        "photos.tar.gz": r"is a tar archive\. Unpack it \(tar xf .*photos\.tar\.gz\)",
        "photos.tar": "is a tar archive",
        "photos.tgz": "is a tar archive",
        "cat.jpg": r"is a single image\. --data takes a folder, a \.zip, or a table \(\.csv, \.tsv, \.jsonl\)",
        "photos.7z": "is no folder, zip or table",
        "pipe.zip": "not a regular file",
    }.items():
        with pytest.raises(UserError, match=message):
            load(str(tmp_path / name), cache=tmp_path / "cache", progress=False)


def link_member() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train/a.jpg", jpeg())
        link = zipfile.ZipInfo("train/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
    return buffer.getvalue()


def encrypted_member() -> bytes:
    content = bytearray(GOOD)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    return bytes(content)


def repeated_member() -> bytes:
    return zip_of({"train/a.jpg": b"one", "train/b.jpg": b"two"}).replace(b"train/b.jpg", b"train/a.jpg")


def damaged_member() -> bytes:
    content = bytearray(zip_of({"train/a/b.jpg": os.urandom(5000), "train/a/c.jpg": os.urandom(5000)}))
    content[7000] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of({"train/a.jpg": b"x", "../out.jpg": b"x"}), "'../out.jpg' would be written outside"),
        (zip_of({"train/../../out.jpg": b"x"}), "would be written outside"),
        (zip_of({"/out.jpg": b"x"}), "would be written outside"),
        (zip_of({"C:/out.jpg": b"x"}), "would be written outside"),
        (zip_of({"train\\..\\..\\out.jpg": b"x"}), "would be written outside"),
        (link_member(), "'train/link' is a link or device"),
        (encrypted_member(), "is refused: its entry .* is encrypted"),
        (repeated_member(), "holds two entries for train/a.jpg"),
        (damaged_member(), "is no zip, or a damaged one"),
        (GOOD[: len(GOOD) // 2], "is no zip, or a damaged one"),
        (b"not a zip at all", "is no zip, or a damaged one"),
        (zip_of({"train/a": b"x", "train/a/b.jpg": b"x"}), "holds two entries for train/a"),
    ],
)
def test_unsafe_and_damaged_zips_leave_nothing(tmp_path, content, message):
    path = save(tmp_path / "bad.zip", content)
    with pytest.raises(UserError, match=message):
        load(str(path), cache=tmp_path / "in" / "cache", progress=False)
    assert nothing_kept(tmp_path / "in")
    assert list((tmp_path / "in").rglob("*.partial")) == []
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["bad.zip"]


def test_an_unsafe_download_is_refused_too(server, tmp_path):
    unsafe = zip_of({"train/a.jpg": b"x", "../../out.jpg": b"x"})
    server.answers["/unsafe.zip"] = (200, unsafe, None)
    with pytest.raises(UserError, match="would be written outside"):
        get(server, tmp_path / "cache", "/unsafe.zip", hashlib.sha1(unsafe).hexdigest())
    assert not list(tmp_path.rglob("*.jpg"))


def test_bombs(tmp_path, monkeypatch):
    path = save(tmp_path / "bomb.zip", zip_of({"train/a.jpg": bytes(3_000_000)}))
    monkeypatch.setattr(zips, "RATIO_FREE", 1_000_000)
    with pytest.raises(UserError, match="it would grow [0-9,]+ times"):
        load(str(path), cache=tmp_path / "cache", progress=False)
    monkeypatch.setattr(zips, "MAX_UNPACKED", 2_999_999)
    with pytest.raises(UserError, match="unpack to 3,000,000 bytes, more than the 2,999,999 allowed"):
        load(str(path), cache=tmp_path / "cache", progress=False)
    assert nothing_kept(tmp_path / "cache")


def test_demo_is_drawn_once(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "DEFAULTS", demo.Defaults(4, 2, 16, 0))
    data = load("demo", cache=tmp_path, progress=False)
    assert data.name == "demo"
    assert (len(data.train), len(data.test)) == (4, 2)
    monkeypatch.setattr(demo, "render", None)
    assert load("demo", cache=tmp_path, progress=False) == data


def test_a_demo_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(folder, *_, **__):
        (folder / "train").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "render", fail)
    with pytest.raises(UserError, match="No space left on device. Free space there, or set FINE_TUNING_CACHE"):
        load("demo", cache=tmp_path, progress=False)
    assert [path.suffix for path in (tmp_path / "demo").iterdir()] in ([".lock"], [])


def test_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FINE_TUNING_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("FINE_TUNING_CACHE")
    assert cache_folder() == Path(common.__file__).parents[1] / "cache"
