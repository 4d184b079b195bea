"""From Humble (Python 3.10, CMake 3.22) to Lyrical (Python 3.14, CMake 4, NumPy 2.3): what is known of each holds.

None of them but Jazzy is here to be run; what can be read off the sources is.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "sam2_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py"), ROOT / "scripts" / "sam2_node"])
# Of the standard library: gone in Python 3.11 to 3.14.
GONE = {
    *("asynchat", "asyncore", "binhex", "distutils", "imp", "smtpd"),
    *(
        "aifc",
        "audioop",
        "cgi",
        "cgitb",
        "chunk",
        "crypt",
        "imghdr",
        "mailcap",
        "msilib",
        "nis",
        "nntplib",
        "ossaudiodev",
    ),
    *("pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
}
RELEASES = ("Humble", "Jazzy", "Kilted", "Lyrical")


def cmake() -> str:
    return re.sub(r"#.*", "", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))


def test_cmake_is_of_every_release() -> None:
    required = re.search(r"cmake_minimum_required\(VERSION (\d+)\.(\d+)", cmake())
    assert required
    version = (int(required[1]), int(required[2]))
    assert version <= (3, 22), "Humble's Ubuntu has CMake 3.22"
    assert version >= (3, 10), "CMake 4, which Lyrical has, takes nothing older as it is"
    assert "ament_target_dependencies" not in cmake(), "Lyrical has it no more: use target_link_libraries"


def test_sources_are_python_of_humble_and_of_lyrical() -> None:
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in imported} & GONE, path


def test_the_page_says_what_holds_for_each_release() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    for release in RELEASES:
        assert release in rows, release
    for release in ("Humble", "Jazzy", "Kilted"):
        assert '`"numpy<2"`' in rows[release], release
    assert "numpy<2" not in rows["Lyrical"], "its OpenCV and cv_bridge are compiled for NumPy 2"
    assert "FASTDDS_DEFAULT_PROFILES_FILE" in rows["Lyrical"] and "FASTDDS_DEFAULT_PROFILES_FILE" in rows["Kilted"]
