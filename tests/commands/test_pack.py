import json
import tarfile

import pytest

slow = pytest.mark.slow


def test_a_bundle_that_is_not_there_is_a_usage_error(mmedge, tmp_path):
    assert mmedge("pack", tmp_path / "none.bundle", "--for", "jetson", "-o", tmp_path / "x.tar").code == 2


@slow
def test_an_archive_is_written_and_its_digest_told(mmedge, captioner, tmp_path):
    shown = mmedge("pack", captioner, "--for", "jetson", "-o", tmp_path / "x.tar")
    assert shown.code == 0 and str(tmp_path / "x.tar") in shown.out and "sha256 " in shown.out
    assert "warning: this bundle was made for cpu" in shown.err
    assert tarfile.is_tarfile(tmp_path / "x.tar")
    assert mmedge("pack", captioner, "--for", "jetson", "-o", tmp_path / "x.tar").code == 2
    again = mmedge("pack", captioner, "--for", "jetson", "-o", tmp_path / "x.tar", "--force", "--json")
    told = json.loads(again.out)
    assert told["sha256"] in shown.out and told["files"] > 10 and told["missing"]["3.10"]


@slow
def test_wheels_that_do_not_fit_exit_2(mmedge, captioner, tmp_path):
    (tmp_path / "wheels").mkdir()
    arguments = ("pack", captioner, "--for", "jetson", "-o", tmp_path / "x.tar", "--wheels", tmp_path / "wheels")
    assert "there are no wheels" in mmedge(*arguments).err
    (tmp_path / "wheels/numpy-2.2.6-cp310-cp310-win_amd64.whl").write_text("")
    shown = mmedge(*arguments)
    assert shown.code == 2 and "does not fit" in shown.err
