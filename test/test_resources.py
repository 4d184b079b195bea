"""share_path finds config/ and launch/ in a checkout and in an installed tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2_ros import resources


def test_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package.xml").touch()
    (tmp_path / "config").mkdir()
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "sam2_ros" / "resources.py"))
    assert resources.share_path("config") == tmp_path / "config"


def test_in_an_installed_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = tmp_path / "share" / "sam2_ros" / "config" / "fastdds.xml"
    profile.parent.mkdir(parents=True)
    profile.touch()
    module = tmp_path / "lib" / "python3.12" / "site-packages" / "sam2_ros" / "resources.py"
    monkeypatch.setattr(resources, "__file__", str(module))
    assert resources.share_path("config/fastdds.xml") == profile


def test_what_is_missing_is_named_with_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "sam2_ros" / "resources.py"))
    with pytest.raises(FileNotFoundError, match=r"no 'config/x\.yaml'.*share/sam2_ros/config/x\.yaml"):
        resources.share_path("config/x.yaml")


@pytest.mark.parametrize("path", ["/etc/passwd", "../secrets"])
def test_only_paths_below_the_share_folder(path: str) -> None:
    with pytest.raises(ValueError, match="below the share folder"):
        resources.share_path(path)
