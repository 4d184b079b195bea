"""Official weights come from the hub once, whole and unchanged, or one line says why not; the hub is a server here."""

from __future__ import annotations

import io
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Hub, hub_serving
from tiny_model import TINY, tiny_model

from sam2_ros.model import official_weights
from sam2_ros.model.checkpoint import CheckpointError
from sam2_ros.model.config import MODELS
from sam2_ros.model.official_weights import OFFICIAL_FILES, OfficialFile, fetch_official_file, find_official_file
from sam2_ros.session.model_loading import load_configured_tracker
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.tracking.loading import load_network

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra `hub`: run `make venv`")
FILE = OfficialFile("someone/tiny", "tiny.pt", "MIT")
PATH = "someone/tiny/resolve/main/tiny.pt"


@pytest.fixture(scope="module")
def weights() -> bytes:
    file = io.BytesIO()
    torch.save({"model": tiny_model(TINY, seed=4).state_dict()}, file)
    return file.getvalue()


@pytest.fixture
def hub(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """With the weights of a tiny entry of the table, and an empty cache."""
    monkeypatch.setitem(MODELS, TINY.name, TINY)
    monkeypatch.setitem(OFFICIAL_FILES, TINY.name, FILE)
    with hub_serving({PATH: weights}) as server:
        monkeypatch.setattr(official_weights, "_endpoint", lambda: server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def test_every_official_model_of_the_table_has_a_file() -> None:
    assert OFFICIAL_FILES.keys() == MODELS.keys() - {"nano"}
    assert (
        str(OFFICIAL_FILES["sam2.1_hiera_base_plus"]) == "sam2.1_hiera_base_plus.pt of facebook/sam2.1-hiera-base-plus"
    )
    assert all(official.file == f"{name}.pt" for name, official in OFFICIAL_FILES.items())


def test_weights_are_fetched_once_and_told_with_size_and_licence(
    hub: Hub, caplog: pytest.LogCaptureFixture, weights: bytes
) -> None:
    assert find_official_file(TINY.name) is None
    with caplog.at_level(logging.INFO):
        network = load_network(TINY.name, precision="float32")
    expected = tiny_model(TINY, seed=4).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    megabytes = f"{len(weights) / 1e6:.0f} MB"
    assert f"fetching tiny.pt of someone/tiny ({megabytes}, licence MIT) from {hub.url}" in caplog.text
    assert len(hub.asked) == 1
    load_network(TINY.name)
    assert len(hub.asked) == 1
    found = find_official_file(TINY.name)
    assert found is not None
    assert found.path.read_bytes() == weights


def test_what_is_here_needs_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_official_file(TINY.name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(official_weights, "_endpoint", lambda: "http://127.0.0.1:9")
    assert load_network(TINY.name).config == TINY


def test_mirror_and_cache_are_those_of_the_environment(hub: Hub, weights: bytes, tmp_path: Path) -> None:
    code = "from sam2_ros.model.official_weights import *; print(fetch_official_file('edgetam').path)"
    hub.files["facebook/EdgeTAM/resolve/main/edgetam.pt"] = weights
    variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=300, check=True
    )
    path = Path(done.stdout.strip())
    assert path.is_relative_to(tmp_path / "home")
    assert path.read_bytes() == weights


def test_broken_download_goes_on_where_it_ended(hub: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what has come in whole chunks is kept
    hub.cut_after = len(weights) // 2
    path = None
    for _ in range(3):  # the hub's library goes on by itself, or with the next call
        try:
            path = fetch_official_file(TINY.name).path
            break
        except CheckpointError:
            continue
    assert path is not None
    assert path.read_bytes() == weights
    ranges = [range_ for _, range_ in hub.asked]
    assert ranges[0] is None or ranges[0] == "bytes=0-"
    start = int(str(ranges[-1]).removeprefix("bytes=").partition("-")[0])
    assert 0 < start <= len(weights) // 2


def test_damaged_file_is_rejected_and_fetched_anew(hub: Hub) -> None:
    hub.damaged = True
    with pytest.raises(CheckpointError, match=r"has another sha256: expected .*; it was removed: try again") as caught:
        load_network(TINY.name)
    assert "\n" not in str(caught.value)
    assert find_official_file(TINY.name) is None
    hub.damaged = False
    assert load_network(TINY.name).config == TINY


def assert_one_clear_line(error: BaseException, reason: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert text.startswith(f"{TINY.name}: its weights (tiny.pt of someone/tiny) are not here, and ")
    assert reason in text
    assert "fetch them once with a network, or copy the file here and give its path as checkpoint" in text


def test_offline_mode_is_one_clear_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError) as caught:
        load_network(TINY.name)
    assert_one_clear_line(caught.value, "HF_HUB_OFFLINE forbids to fetch it")
    assert not hub.asked


def test_no_network_is_one_clear_line_and_soon(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(official_weights, "_endpoint", lambda: f"http://127.0.0.1:{unused.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(CheckpointError) as caught:
            load_network(TINY.name)
    assert_one_clear_line(caught.value, "does not answer (")
    assert time.monotonic() - started < 20


def test_file_that_the_hub_does_not_have_is_one_clear_line(hub: Hub) -> None:
    del hub.files[PATH]
    with pytest.raises(CheckpointError) as caught:
        load_network(TINY.name)
    assert_one_clear_line(caught.value, "404")


def test_missing_package_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert find_official_file(TINY.name) is None
    with pytest.raises(CheckpointError) as caught:
        load_network(TINY.name)
    assert_one_clear_line(caught.value, "not installed (pip install huggingface_hub)")


def test_node_without_a_network_says_the_line_and_can_load_later(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = NodeParameters(model=TINY.name, precision="float32")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE forbids") as caught:
        load_configured_tracker(parameters)
    assert_one_clear_line(caught.value, "HF_HUB_OFFLINE forbids to fetch it")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert load_configured_tracker(parameters).model_name == TINY.name
