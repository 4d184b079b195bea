"""Which file a request names, and that ``session_dir`` is not left."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2_ros.session.persistence import SessionFileError, session_path


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert session_path("s.pt") == tmp_path / "s.pt"
    assert session_path("").name.startswith("sam2_session_")
    with pytest.raises(SessionFileError, match="expected the name of a file"):
        session_path("a\0b")
    with pytest.raises(SessionFileError, match=r"'~nobody_of_this_name.*' begins with the home of a user"):
        session_path("~nobody_of_this_name/s.pt")


@pytest.fixture
def kept_in(tmp_path: Path) -> Path:
    """A ``session_dir`` with links that stay in it and links that lead out."""
    folder = tmp_path / "sessions"
    (folder / "left").mkdir(parents=True)
    (tmp_path / "sessions_of_others").mkdir()
    (folder / "latest").symlink_to("left")
    (folder / "out").symlink_to(tmp_path)
    (folder / "out.pt").symlink_to(tmp_path / "elsewhere.pt")
    (folder / "round").symlink_to("round")
    return folder


@pytest.mark.parametrize("wanted", ["s.pt", "left/s.pt", "latest/s.pt", "left/../s.pt", "{}/s.pt", ""])
def test_paths_within_session_dir(kept_in: Path, wanted: str) -> None:
    path = session_path(wanted.format(kept_in), str(kept_in))
    assert path.is_relative_to(kept_in) and path == path.resolve()


@pytest.mark.parametrize(
    "wanted",
    ["../s.pt", "/etc/passwd", "~/s.pt", "out/s.pt", "out.pt", "latest/../../s.pt", "{}_of_others/s.pt", "round/s.pt"],
)
def test_paths_that_lead_out_of_session_dir_are_rejected(kept_in: Path, wanted: str) -> None:
    with pytest.raises(SessionFileError, match="session_dir"):
        session_path(wanted.format(kept_in), str(kept_in))


@pytest.mark.parametrize("session_dir", ["no_such_folder", "a_file"])
def test_a_session_dir_that_is_none_is_said(tmp_path: Path, session_dir: str) -> None:
    (tmp_path / "a_file").touch()
    with pytest.raises(SessionFileError, match=f"session_dir.*{session_dir}"):
        session_path("s.pt", str(tmp_path / session_dir))
