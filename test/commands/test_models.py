"""``sam2-ros models``: the table is whole, and its figures are those of the networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sam2_ros.cli import main
from sam2_ros.commands.models import COSTS
from sam2_ros.model.config import MODELS
from sam2_ros.model.official_weights import OFFICIAL_FILES, FetchedFile
from sam2_ros.model.sam2 import SAM2, MemoryTokens
from sam2_ros.tracking.memory_bank import BankPolicy


def test_every_model_of_the_table_is_listed() -> None:
    assert COSTS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", ["nano", "edgetam", "efficienttam_ti_2"])
def test_costs_are_those_of_the_network(name: str) -> None:
    """Counted on tensors without values, of a frame with one object whose memory is full."""
    config = MODELS[name]
    policy = BankPolicy.of(config)
    pointers = policy.max_pointers * config.tokens_per_pointer
    with torch.device("meta"), torch.no_grad():
        network = SAM2(config).eval().requires_grad_(False)
        tokens = torch.zeros(1, (policy.reach + 1) * config.memory_tokens + pointers, config.memory_dim)
        with FlopCounterMode(display=False) as counter:
            features = network.encode_image(torch.zeros(1, 3, config.image_size, config.image_size))
            conditioned = network.attend_to_memory(features, MemoryTokens(tokens, tokens, pointers))
            found = network.decode_masks(conditioned, features)
            network.encode_memory(features, found.logits_b1hw, found.object_score_logits_b1, prompted=False)
    parameters, gflop = COSTS[name]
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(parameters, abs=0.006)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=0.02)


def test_table_says_where_the_weights_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here = FetchedFile(tmp_path / "edgetam.pt", None)
    monkeypatch.setattr(
        "sam2_ros.model.official_weights.find_official_file", lambda model: here if model == "edgetam" else None
    )
    assert main(["models", "--json", str(tmp_path / "models.json")]) == 0
    *table, summary = capsys.readouterr().out.splitlines()
    by_name = {line.split()[0]: line for line in table}
    assert by_name.keys() == {"model", *MODELS}
    assert by_name["nano"].endswith("in the package")
    assert by_name["edgetam"].endswith(f"here: {here.path}")
    official = OFFICIAL_FILES["efficienttam_s"]
    assert by_name["efficienttam_s"].endswith(f"Apache-2.0  fetched when first used: {official}")
    rows = {row["model"]: row for row in json.loads(summary)["models"]}
    assert rows["edgetam"]["path"] == str(here.path)
    assert rows["sam2_hiera_tiny"]["path"] is None
    assert json.loads((tmp_path / "models.json").read_text()) == json.loads(summary)
