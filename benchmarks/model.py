"""Every model and number of objects that is asked for, ours beside the official code: `sam2-ros bench` again and again.

    python benchmarks/model.py --models nano sam2.1_hiera_tiny --objects 1 4 16 --csv model.csv
    python benchmarks/model.py --device cuda --models sam2.1_hiera_{tiny,small,base_plus,large} --csv gpu.csv

Each comparison is a process of its own, so that none inherits another's memory or compiled code. On two CPU cores one
frame of a 1024 px model takes seconds in each of four ways: minutes for a comparison, and more with many objects.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run all comparisons; returns the first exit status that is not 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["nano"], metavar="MODEL", help="default: nano")
    parser.add_argument("--objects", nargs="+", type=int, default=[1, 4, 16], metavar="N", help="default: 1 4 16")
    parser.add_argument("--frames", type=int, default=5, metavar="N", help="timed in each comparison (default: 5)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="add the rows to that file")
    args, others = parser.parse_known_args(argv)
    for model in args.models:
        for num_objects in args.objects:
            command = [sys.executable, "-m", "sam2_ros.cli", "bench", "--model", model, "--objects", str(num_objects)]
            command += ["--frames", str(args.frames), "--device", args.device, *others]
            command += [] if args.csv is None else ["--csv", str(args.csv)]
            status = subprocess.run(command, check=False).returncode
            if status:
                return status
            print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
