"""``sam2-ros models``: every model of the table, what it costs, its licence, and whether its weights are here."""

from __future__ import annotations

import argparse
from typing import Any

from sam2_ros.commands.shared import add_json_option, print_summary

# Millions of parameters, and GFLOP of one frame with one object and a full memory at the model's own size, counted by
# PyTorch's FlopCounterMode; test/commands/test_models.py counts again.
COSTS: dict[str, tuple[float, float]] = {
    "nano": (4.84, 3.4),
    "edgetam": (13.86, 29),
    "efficienttam_ti": (17.87, 730),
    "efficienttam_ti_1": (17.87, 367),
    "efficienttam_ti_2": (17.87, 367),
    "efficienttam_ti_512x512": (17.87, 72),
    "efficienttam_s": (34.06, 925),
    "efficienttam_s_1": (34.06, 562),
    "efficienttam_s_2": (34.06, 562),
    "efficienttam_s_512x512": (34.06, 115),
    "sam2.1_hiera_tiny": (38.96, 908),
    "sam2.1_hiera_small": (46.06, 975),
    "sam2.1_hiera_base_plus": (80.85, 1261),
    "sam2.1_hiera_large": (224.45, 2436),
    "sam2_hiera_tiny": (38.95, 908),
    "sam2_hiera_small": (46.04, 975),
    "sam2_hiera_base_plus": (80.83, 1261),
    "sam2_hiera_large": (224.43, 2436),
}
_COLUMNS = ("model", "px", "M parameters", "GFLOP a frame", "licence", "weights")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_json_option(parser, "write the table to FILE, too")


def run(args: argparse.Namespace) -> int:
    """Print the table, and the JSON as the last line."""
    return print_summary("models", list_models, args.json, (OSError,))


def list_models() -> dict[str, Any]:
    """Print one line for each model; the same for the JSON."""
    from sam2_ros.model.config import MODELS
    from sam2_ros.model.official_weights import OFFICIAL_FILES, find_official_file
    from sam2_ros.tracking.loading import EMBEDDED_WEIGHTS

    rows = []
    for name, config in MODELS.items():
        official = OFFICIAL_FILES.get(name)
        fetched = None if official is None else find_official_file(name)
        parameters, gflop = COSTS[name]
        rows.append(
            {
                "model": name,
                "image_size": config.image_size,
                "parameters_millions": parameters,
                "gflop": gflop,
                "licence": "Apache-2.0" if official is None else official.licence,
                "source": "this package" if official is None else str(official),
                "path": str(EMBEDDED_WEIGHTS) if official is None else str(fetched.path) if fetched else None,
            }
        )
    _print(rows)
    return {"models": rows}


def _print(rows: list[dict[str, Any]]) -> None:
    lines = [_COLUMNS]
    for row in rows:
        where = f"here: {row['path']}" if row["path"] else f"fetched when first used: {row['source']}"
        where = "in the package" if row["source"] == "this package" else where
        numbers = (f"{row['parameters_millions']:.1f}", f"{row['gflop']:g}")
        lines.append((row["model"], str(row["image_size"]), *numbers, row["licence"], where))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
