import re

import pytest

from mmedge.errors import DownloadError, UsageError
from mmedge.export.fetch import find_checkpoint


def test_a_folder_is_found_by_any_path_to_it(tmp_path, monkeypatch):
    (folder := tmp_path / "checkpoint").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (str(folder), f"{folder}/", "checkpoint", "./checkpoint", "checkpoint/."):
        assert find_checkpoint(name) == folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no such thing", "is no folder and no Hub name"),
        ("", "is no folder and no Hub name"),
        ("../owner/name", "is no folder and no Hub name"),
        ("a" * 5000, "is no folder and no Hub name"),
        ("https://example.org/owner/name", "is no folder and no Hub name"),
        ("builtin:", "no built-in model is called ``"),
        ("builtin:nothing", "no built-in model is called `nothing`"),
        ("builtin:../builtin/scenes", "no built-in model is called"),
        (__file__, "is a file, a checkpoint is a folder"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_no_name_of_a_model_is_a_mistake_in_the_command(name, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        find_checkpoint(name)


def test_a_model_that_cannot_be_fetched_is_a_failed_download():
    """There is no network in a test."""
    with pytest.raises(DownloadError, match="cannot fetch `owner/name` at `main`") as caught:
        find_checkpoint("owner/name")
    assert "\n" not in caught.value.message and "folder" in caught.value.hint
