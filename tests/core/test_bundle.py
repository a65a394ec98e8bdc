"""Every damage to a file of a bundle is found, and named."""

import hashlib
import os

import msgspec
import pytest

from mmedge.core.bundle import MANIFEST, SEAL, Bundle, open_bundle, write_manifest
from mmedge.errors import BundleError, UsageError


def flip(position):
    def damage(content):
        changed = bytearray(content)
        changed[position if position >= 0 else len(content) + position] ^= 0x10
        return bytes(changed)

    return damage


DAMAGE = {
    "first byte": flip(0),
    "middle byte": lambda content: flip(len(content) // 2)(content),
    "last byte": flip(-1),
    "truncated": lambda content: content[:-1],
    "grown": lambda content: content + b"\0",
    "emptied": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_any_file_is_found_and_the_file_is_named(damage, spoiled, workshop):
    bundle = open_bundle(spoiled)
    assert len(workshop.files) == 10
    for name, content in workshop.files.items():
        (spoiled / name).write_bytes(DAMAGE[damage](content))
        for use in (bundle.verify, lambda name=name: bundle.read(name), lambda name=name: bundle.file(name)):
            with pytest.raises(BundleError, match=name):
                use()
        (spoiled / name).write_bytes(content)
    bundle.verify()


def test_a_file_of_another_size_is_not_even_read(spoiled):
    os.truncate(spoiled / "graphs/encoder.bin", 1 << 30)  # takes no room on the disk
    bundle = open_bundle(spoiled)
    for use in (bundle.verify, lambda: bundle.read("graphs/encoder.bin"), lambda: bundle.file("graphs/encoder.bin")):
        with pytest.raises(BundleError, match="is 1073741824 bytes, the manifest says 4224"):
            use()


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [MANIFEST, SEAL])
def test_damage_to_the_manifest_is_found(name, damage, spoiled):
    (spoiled / name).write_bytes(DAMAGE[damage]((spoiled / name).read_bytes()))
    with pytest.raises(BundleError, match=MANIFEST):
        open_bundle(spoiled)


def test_a_flipped_bit_anywhere_in_the_manifest_is_found(spoiled):
    content = (spoiled / MANIFEST).read_bytes()
    for position in range(0, len(content), 23):
        (spoiled / MANIFEST).write_bytes(flip(position)(content))
        with pytest.raises(BundleError, match=MANIFEST):
            open_bundle(spoiled)


def test_a_missing_file_is_named(spoiled, workshop):
    for name, content in workshop.files.items():
        (spoiled / name).unlink()
        with pytest.raises(BundleError, match=f"{name}` is missing"):
            open_bundle(spoiled).verify()
        (spoiled / name).write_bytes(content)


@pytest.mark.parametrize("name", [MANIFEST, SEAL])
def test_a_folder_without_manifest_is_no_bundle(name, spoiled):
    (spoiled / name).unlink()
    with pytest.raises(BundleError, match=f"{name}` is missing"):
        open_bundle(spoiled)


@pytest.mark.parametrize(
    "name", ["extra", "graphs/extra.bin", "golden/0/.hidden", "graphs/\x1b[31m\n", "manifest.json~"]
)
def test_a_file_that_is_not_listed_is_refused(name, spoiled):
    (spoiled / name).write_bytes(b"")
    with pytest.raises(BundleError, match="is not listed in the manifest") as refusal:
        open_bundle(spoiled).verify()
    assert refusal.value.message.isprintable()


def test_a_folder_or_link_that_is_not_listed_is_refused(spoiled):
    (spoiled / "empty").mkdir()
    with pytest.raises(BundleError, match="empty` is not listed"):
        open_bundle(spoiled).verify()
    (spoiled / "empty").rmdir()
    (spoiled / "graphs/link").symlink_to("..")
    with pytest.raises(BundleError, match="link` is not listed"):
        open_bundle(spoiled).verify()


def test_no_bundle_at_all_is_a_mistake_in_the_command(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "nothing", tmp_path / "file", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(UsageError, match="no bundle at"):
            open_bundle(path)


def test_what_is_read_is_what_was_written(pristine, workshop):
    bundle = open_bundle(pristine)
    assert {name: bundle.read(name) for name in bundle.manifest.files} == workshop.files
    assert {name: bundle.file(name).read_bytes() for name in bundle.manifest.files} == workshop.files


def test_verify_tells_its_progress_file_by_file(pristine):
    bundle, heard = open_bundle(pristine), []
    bundle.verify(heard.append)
    assert heard == list(bundle.manifest.files)


def test_the_digest_is_that_of_the_manifest(pristine, spoiled):
    digest = hashlib.sha256((pristine / MANIFEST).read_bytes()).hexdigest()
    assert open_bundle(pristine).digest == open_bundle(spoiled).digest == digest


def test_a_file_swapped_for_another_of_the_same_size_is_found_by_its_content(spoiled):
    (spoiled / "graphs/decoder.bin").replace(spoiled / "graphs/encoder.bin")
    with pytest.raises(BundleError, match=r"encoder\.bin` is damaged"):
        open_bundle(spoiled).read("graphs/encoder.bin")


def test_a_manifest_is_written_once(spoiled):
    manifest = open_bundle(spoiled).manifest
    with pytest.raises(FileExistsError):
        write_manifest(spoiled, manifest)
    for name in (MANIFEST, SEAL):
        (spoiled / name).unlink()
    write_manifest(spoiled, msgspec.structs.replace(manifest, title="changed"))
    assert open_bundle(spoiled).manifest.title == "changed"


def test_a_bundle_cannot_be_changed(pristine):
    with pytest.raises(AttributeError):
        open_bundle(pristine).path = pristine  # type: ignore[misc]
    assert isinstance(open_bundle(pristine), Bundle)
