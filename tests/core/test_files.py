"""Whatever else stands where a file should be is refused at once: nothing hangs, nothing outside is read."""

import os
import shutil
import socket
import stat

import pytest

from mmedge.core.bundle import open_bundle
from mmedge.core.files import open_regular
from mmedge.errors import BundleError

VICTIM = "graphs/encoder.bin"


def link_inside(path):
    path.rename(path.with_name("real.bin"))
    path.symlink_to("real.bin")


def link_outside(path):
    path.rename(path.parents[2] / "outside.bin")
    path.symlink_to("../../outside.bin")


def absolute_link(path):
    outside = path.rename(path.parents[2] / "outside.bin")
    path.symlink_to(outside)


def dangling_link(path):
    path.unlink()
    path.symlink_to("nowhere")


def looping_link(path):
    path.unlink()
    path.symlink_to("loop")
    path.with_name("loop").symlink_to(path.name)


def link_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


def linked_folder_inside(path):
    path.parent.rename(path.parents[1] / "real")
    path.parent.symlink_to("real")


def linked_folder_outside(path):
    path.parent.rename(path.parents[2] / "outside")
    path.parent.symlink_to("../outside")


def hard_link_outside(path):
    os.link(path, path.parents[2] / "twin.bin")


def hard_link_inside(path):
    os.link(path, path.with_name("twin.bin"))


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def unix_socket(path):
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/{path.name}")  # the path itself may be longer than an address can be
        os.close(folder)


def device(kind, major, minor):
    def put(path):
        path.unlink()
        try:
            os.mknod(path, kind | 0o666, os.makedev(major, minor))
        except PermissionError:
            pytest.skip("only root may make devices")

    put.__name__ = "character_device" if kind == stat.S_IFCHR else "block_device"
    return put


def folder(path):
    path.unlink()
    path.mkdir()


def file_for_folder(path):
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"")


KINDS = [
    *(link_inside, link_outside, absolute_link, dangling_link, looping_link, link_to_itself, linked_folder_inside),
    *(linked_folder_outside, hard_link_outside, hard_link_inside, fifo, unix_socket, device(stat.S_IFCHR, 1, 5)),
    *(device(stat.S_IFBLK, 7, 0), folder, file_for_folder),
]
USES = {
    "read": lambda bundle: bundle.read(VICTIM),
    "file": lambda bundle: bundle.file("graphs/encoder.onnx"),  # which refers to the victim
    "verify": lambda bundle: bundle.verify(),
}


@pytest.mark.timeout(20)  # an engine that opens a FIFO waits for ever
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("use", USES)
def test_what_is_no_plain_file_is_refused(use, kind, spoiled):
    bundle = open_bundle(spoiled)
    kind(spoiled / VICTIM)
    with pytest.raises(BundleError, match=r"graphs|real` is not listed"):
        USES[use](bundle)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("kind", [link_outside, hard_link_outside, fifo, folder], ids=lambda kind: kind.__name__)
def test_the_manifest_must_be_a_plain_file_too(kind, name, spoiled):
    (spoiled / "deep").mkdir()  # the kinds above expect a folder between the bundle and the file
    kind((spoiled / name).rename(spoiled / "deep" / name))
    (spoiled / "deep" / name).rename(spoiled / name)
    with pytest.raises(BundleError, match=name):
        open_bundle(spoiled)


def test_the_reason_says_what_is_there_instead(spoiled):
    hard_link_outside(spoiled / VICTIM)
    with pytest.raises(BundleError, match=r"encoder.bin` has 2 names"), open_regular(spoiled, VICTIM):
        pass
    link_inside(spoiled / "assets/tokenizer.json")
    with pytest.raises(BundleError, match=r"tokenizer.json` is a link"), open_regular(spoiled, "assets/tokenizer.json"):
        pass


def test_no_descriptor_stays_open(spoiled):
    before = len(os.listdir("/proc/self/fd"))
    for kind in (folder, linked_folder_inside):
        kind(spoiled / VICTIM)
        with pytest.raises(BundleError), open_regular(spoiled, VICTIM):
            pass
    with open_regular(spoiled, "assets/tokenizer.json"):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_bundle_itself_may_be_reached_through_a_link(pristine, tmp_path):
    (tmp_path / "current").symlink_to(pristine)
    open_bundle(tmp_path / "current").verify()


def test_a_bundle_works_read_only_and_under_any_name(pristine, tmp_path):
    place = shutil.copytree(pristine, tmp_path / f"with space, \u00fcml\u00e4ut {'x' * 180}")
    for path in place.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    open_bundle(place).verify()
    assert open_bundle(place).file("graphs/encoder.onnx").is_file()
