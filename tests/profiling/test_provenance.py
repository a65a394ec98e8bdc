import re
import subprocess

from mmedge import __version__
from mmedge.profiling import provenance


def test_a_command_line_says_nothing_of_the_folders_that_files_lie_in():
    line = [
        "/home/me/bin/mmedge",
        "profile",
        "private/a.bundle/",
        "--inputs=/home/me/pictures",
        "--ci",
        "2%",
        "n/a\udce9",
    ]
    assert provenance.redacted(line) == ("mmedge", "profile", "a.bundle", "--inputs=pictures", "--ci", "2%", "a\\udce9")


def test_a_checkout_tells_its_commit_and_whether_files_were_changed(tmp_path, monkeypatch):
    git = ["git", "-C", tmp_path, "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    made = provenance.made()
    assert made.version == __version__ and re.fullmatch("[0-9a-f]{12}", made.commit)
    (tmp_path / "file").write_text("2")
    assert provenance.made().commit == f"{made.commit}+"


def test_an_installed_package_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert provenance.made().commit is None
