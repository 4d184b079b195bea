"""The official weights of each model: where they are published, and how they come from there to here, once.

Files come through ``huggingface_hub`` (an extra), into its cache: a broken download is resumed, ``HF_HUB_OFFLINE``,
``HF_ENDPOINT`` and ``HF_HOME`` mean what they mean elsewhere. A file is used only if its hash is the one that the hub
has for it; there are no hashes in the table, since nobody here has seen the files.
"""

from __future__ import annotations

import logging
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2_ros.model.checkpoint import CheckpointError

logger = logging.getLogger(__name__)

_APACHE = "Apache-2.0"
_REACH_TIMEOUT_S = 5.0  # after which there is no network; the hub's own library retries for half a minute


@dataclass(frozen=True)
class OfficialFile:
    """Where a model's weights are published, and under which licence."""

    repository: str  # on the hub
    file: str
    licence: str = _APACHE

    def __str__(self) -> str:
        return f"{self.file} of {self.repository}"


@dataclass(frozen=True)
class FetchedFile:
    """A file that is here."""

    path: Path
    sha256: str | None  # that the hub has for it; None where its metadata has none


def _sam2(version: str, size: str) -> OfficialFile:
    return OfficialFile(f"facebook/{version}-hiera-{size.replace('_', '-')}", f"{version}_hiera_{size}.pt")


OFFICIAL_FILES: dict[str, OfficialFile] = {
    "edgetam": OfficialFile("facebook/EdgeTAM", "edgetam.pt"),
    **{
        f"efficienttam_{name}": OfficialFile("yunyangx/efficient-track-anything", f"efficienttam_{name}.pt")
        for name in (f"{size}{variant}" for size in ("ti", "s") for variant in ("", "_1", "_2", "_512x512"))
    },
    **{
        f"{version}_hiera_{size}": _sam2(version, size)
        for version in ("sam2", "sam2.1")
        for size in ("tiny", "small", "base_plus", "large")
    },
}


def find_official_file(model: str) -> FetchedFile | None:
    """The weights of a model of ``OFFICIAL_FILES`` if they are in the hub's cache; nothing is fetched."""
    try:
        from huggingface_hub import constants, try_to_load_from_cache
    except ImportError:
        return None
    official = OFFICIAL_FILES[model]
    found = try_to_load_from_cache(official.repository, official.file, cache_dir=constants.HF_HUB_CACHE)
    return _fetched(Path(found)) if isinstance(found, str) else None


def fetch_official_file(model: str) -> FetchedFile:
    """The weights of a model of ``OFFICIAL_FILES``, from the hub's cache or from the hub.

    Raises:
        CheckpointError: they are not here and cannot be fetched; one line with the reason and what to do.
    """
    if (found := find_official_file(model)) is not None:
        return found
    official = OFFICIAL_FILES[model]
    try:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ImportError as error:
        reason = "huggingface_hub, which fetches it, is not installed (pip install huggingface_hub)"
        raise CheckpointError(_unavailable(model, reason)) from error
    endpoint = _endpoint()
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(_unavailable(model, "HF_HUB_OFFLINE forbids to fetch it"))
    try:
        _reach(endpoint)
    except Exception as error:  # the HTTP client has dozens of kinds
        raise CheckpointError(_unavailable(model, f"{endpoint} does not answer ({type(error).__name__})")) from error
    try:
        url = hf_hub_url(official.repository, official.file, endpoint=endpoint)
        size = get_hf_file_metadata(url, timeout=_REACH_TIMEOUT_S).size or 0
        logger.info("fetching %s (%.0f MB, licence %s) from %s", official, size / 1e6, official.licence, endpoint)
        path = Path(hf_hub_download(official.repository, official.file, endpoint=endpoint))
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise CheckpointError(_unavailable(model, f"{type(error).__name__} at {endpoint}: {lines[0][:200]}")) from error
    logger.info("%s is in %s", official, path)
    return _fetched(path)


def forget_official_file(fetched: FetchedFile) -> None:
    """Take a damaged file out of the cache, so that it is fetched anew."""
    for path in (fetched.path.resolve(), fetched.path):
        path.unlink(missing_ok=True)


def _fetched(path: Path) -> FetchedFile:
    """The cache has a file under the name that the hub gave it: for weights, their sha256."""
    name = path.resolve().name
    is_hash = len(name) == 64 and set(name) <= set(string.hexdigits)
    return FetchedFile(path, name if is_hash else None)


def _endpoint() -> str:
    """The hub, or a mirror (``HF_ENDPOINT``)."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _reach(endpoint: str) -> None:
    """Raise what the HTTP client raises where the hub does not answer."""
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    session.head(endpoint, timeout=_REACH_TIMEOUT_S)


def _unavailable(model: str, reason: str) -> str:
    return (
        f"{model}: its weights ({OFFICIAL_FILES[model]}) are not here, and {reason}; fetch them once with a network, "
        "or copy the file here and give its path as checkpoint, or use the model nano, which has its weights"
    )
