"""Find the files that are not Python: each kind of install has config/, launch/ and msg/ at another place."""

from __future__ import annotations

from pathlib import Path


def share_path(relative: str | Path) -> Path:
    """Path of a file or folder of the project: ``config/``, ``launch/``, ``msg/``, or below, as "config/fastdds.xml".

    A checkout (also when installed editable) has them at its root; pip and colcon install them under
    ``<prefix>/share/sam2_ros``, with this module somewhere below ``<prefix>/lib``.

    Raises:
        FileNotFoundError: there is none; the message lists the places that were searched.
    """
    relative = Path(relative)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"expected a path below the share folder such as 'config/fastdds.xml', got '{relative}'")
    package_dir = Path(__file__).parent
    candidates = [parent / "share" / "sam2_ros" / relative for parent in package_dir.parents]
    if (package_dir.parent / "package.xml").is_file():
        candidates.insert(0, package_dir.parent / relative)
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked_at = ", ".join(str(c) for c in candidates)
    raise FileNotFoundError(f"no '{relative}' of sam2_ros; looked at {looked_at}; install it again")
