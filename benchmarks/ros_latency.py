"""How much time the node adds to the model's, how soon a prompt has its mask, and how many images are dropped.

    python benchmarks/ros_latency.py --frames 300 --csv latency.csv

Camera, node and client are separate processes that talk over DDS, as in `sam2-ros demo`. For each image size the node
is first tried on a still image; then it is prompted again and again, and run, at two camera rates: one that it keeps up
with (a share of what the trial allows, or --rate-hz) and 30 Hz, which shows what an overloaded node drops.

What the columns mean: overhead is from the camera's stamp until the label image is at the client, less the model's own
time (`inference_ms`). The stages, without the model's time either: "until published" is from the camera's stamp until
the node publishes the objects, right after the label image (the camera's sending, DDS, waiting, decoding); "delivery"
from then until the objects are at the client; "inside" is the node's own account from /diagnostics, from an image's
arrival until all is published (over its latest 300 images; left out where too few of them are of the run). A prompt's
time is from the call of ~/add_objects with `wait` until the reply holds the mask; it waits for the next camera image,
at any moment of the camera's period.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from geometry_msgs.msg import Point
from latency_table import Run, markdown, rounded, summarize, write_csv
from looped_camera import scene_clicks
from node_rig import (
    NODE,
    READY_TIMEOUT_S,
    BenchmarkError,
    NodeClient,
    add_node_options,
    click_prompt,
    describe_machine,
    node_at_work,
    node_program,
    positive,
    say,
)
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from sam2_ros.commands.processes import ProcessError, Program
from sam2_ros.demo.camera import RATE_PARAMETER
from sam2_ros.demo.stream import Size, index_of_stamp, parse_size, positive_rate
from sam2_ros.evaluation.busy import busy_process
from sam2_ros.session.stats import LATENCIES_KEPT
from sam2_ros.srv import AddObjects, RemoveObjects

CAMERA = "/demo_camera"
SIZES = (Size(640, 480), Size(1280, 720), Size(1920, 1080))
OVERLOAD_RATE_HZ = 30.0
RATE_HEADROOM = 0.8
TRIAL_FRAMES = 16
SETTLE_FRAMES = 5  # after a change of the rate
FIRST_MASK_TIMEOUT_S = 60.0
# Multiples of it fall evenly into the camera's period, so that prompts come at every moment of it.
GOLDEN = 0.618034


class SizeBench:
    """All that is measured at one image size, in order."""

    def __init__(self, client: NodeClient, size: Size, args: argparse.Namespace) -> None:
        self._client, self._size, self._args = client, size, args
        clicks = scene_clicks(size)
        self._prompts = [(f"object{i}", clicks[i % len(clicks)]) for i in range(args.objects)]

    def measure(self) -> list[Run]:
        self._client.wait_for_node()
        self._client.spin_until(lambda: bool(self._client.answers), READY_TIMEOUT_S, "the first answer to an image")
        rates_hz = (self._args.rate_hz or self._find_rate(), OVERLOAD_RATE_HZ)
        for object_id, click in self._prompts[:-1]:
            self._add(object_id, click)
        prompts_ms = [self._time_prompts(rate_hz) for rate_hz in rates_hz]
        self._add(*self._prompts[-1])
        self._client.call(Trigger, f"{CAMERA}/start")
        return [self._run(rate_hz, prompt_ms) for rate_hz, prompt_ms in zip(rates_hz, prompts_ms, strict=True)]

    def _add(self, object_id: str, click: Point) -> float:
        """Prompt it and wait for its mask; how long that took [ms]."""
        start_ns = self._client.now_ns()
        answer = self._client.call(
            AddObjects,
            f"{NODE}/add_objects",
            within_s=FIRST_MASK_TIMEOUT_S + 10,
            prompts=[click_prompt(object_id, click)],
            wait=True,
            timeout_s=FIRST_MASK_TIMEOUT_S,
        )
        took_ms = (self._client.now_ns() - start_ns) / 1e6
        if not answer.objects.header.stamp.sec:
            raise BenchmarkError(f"no mask of {object_id} came: {answer.message}")
        return took_ms

    def _remove(self, object_id: str) -> None:
        self._client.call(RemoveObjects, f"{NODE}/remove_objects", object_ids=[object_id])

    def _find_rate(self) -> float:
        """Try the objects on the still first image, forget them again; a camera rate at which nothing is dropped."""
        for object_id, click in self._prompts:
            self._add(object_id, click)
        self._wait_for_new(TRIAL_FRAMES, "answers to the first image")
        for object_id, _ in self._prompts:
            self._remove(object_id)
        # Late ones only: a frame takes longer once the memory is full. The whole way, so that nothing overlaps.
        late = [self._client.answers[stamp].latency_ms for stamp in sorted(self._client.answers)[TRIAL_FRAMES // 2 :]]
        return min(RATE_HEADROOM * 1e3 / float(np.percentile(late, 80)), OVERLOAD_RATE_HZ)

    def _wait_for_new(self, count: int, what: str) -> None:
        """Forget what came, and wait for so many answers."""
        self._client.forget()
        self._client.spin_until(lambda: len(self._client.answers) >= count, READY_TIMEOUT_S, what)

    def _time_prompts(self, rate_hz: float) -> list[float]:
        """Add and remove the last object again and again, beside the others, at this camera rate."""
        say(f"{self._size}: {self._args.prompts} prompts at {rate_hz:.1f} Hz")
        self._set_rate(rate_hz)
        object_id, click = self._prompts[-1]
        took_ms = []
        for repetition in range(self._args.prompts):
            self._client.spin_for(repetition * GOLDEN % 1 / rate_hz)
            took_ms.append(self._add(object_id, click))
            self._remove(object_id)
        return took_ms

    def _set_rate(self, rate_hz: float) -> None:
        request = [Parameter(RATE_PARAMETER, value=rate_hz).to_parameter_msg()]
        (result,) = self._client.call(SetParameters, f"{CAMERA}/set_parameters", parameters=request).results
        if not result.successful:
            raise BenchmarkError(f"the camera rejects {rate_hz:g} Hz: {result.reason}")

    def _run(self, rate_hz: float, prompt_ms: Sequence[float]) -> Run:
        say(f"{self._size}: {self._args.frames} images at {rate_hz:.1f} Hz")
        client, frames = self._client, self._args.frames
        self._set_rate(rate_hz)
        for count in (SETTLE_FRAMES, 1):  # the second time: the one that the counting starts at
            self._wait_for_new(count, "images of the running camera")
        last = index_of_stamp(min(client.answers)) + frames

        def is_over() -> bool:
            return index_of_stamp(max(client.answers)) >= last

        client.spin_until(is_over, READY_TIMEOUT_S + 10 * frames / rate_hz, f"the answers to {frames} images")
        client.diagnostics.clear()
        client.spin_until(lambda: bool(client.diagnostics), READY_TIMEOUT_S, "/diagnostics")
        return summarize(
            list(client.answers.values()),
            size=str(self._size),
            asked_rate_hz=rate_hz,
            frames=frames,
            objects=self._args.objects,
            diagnostics=client.diagnostics[-1],
            prompt_ms=prompt_ms,
        )


def measure(args: argparse.Namespace) -> list[Run]:
    runs: list[Run] = []
    for size in args.size or SIZES:
        camera_file = Path(__file__).with_name("looped_camera.py")
        remap = ("--ros-args", "-r", "image:=/image")
        camera = Program("camera", (sys.executable, str(camera_file), "--size", str(size), *remap))
        node = node_program(args, image_timeout_s=READY_TIMEOUT_S)
        neighbour = busy_process(args.busy) if args.busy else contextlib.nullcontext()
        with node_at_work([camera, node]) as client, neighbour:
            runs += [replace(run, busy_threads=args.busy or 0) for run in SizeBench(client, size, args).measure()]
    return runs


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_node_options(parser)
    parser.add_argument(
        "--size", type=parse_size, action="append", help="of the images; default: " + ", ".join(map(str, SIZES))
    )
    parser.add_argument("--objects", type=positive, default=1, help="how many are tracked, default 1")
    parser.add_argument("--frames", type=positive, default=LATENCIES_KEPT, help="camera images of a run, default 300")
    parser.add_argument(
        "--prompts", type=positive, default=20, help="how often a prompt is timed at each rate, default 20"
    )
    parser.add_argument(
        "--rate-hz", type=positive_rate, help="camera rate of the first run; default: one that the node keeps up with"
    )
    parser.add_argument("--busy", type=positive, help="measure beside a process with that many busy threads")
    parser.add_argument("--json", type=Path, help="also write the last line into this file")
    parser.add_argument("--csv", type=Path, help="also write the table into this file")
    args = parser.parse_args(argv)
    try:
        runs = measure(args)
    except (BenchmarkError, ProcessError) as error:
        print(f"ros_latency: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    machine = describe_machine(args.device, args.threads)
    line = json.dumps({"machine": machine, "model": args.model, "runs": [rounded(run) for run in runs]})
    if args.csv is not None:
        write_csv(args.csv, runs)
    if args.json is not None:
        args.json.write_text(line + "\n", encoding="utf-8")
    if args.busy:
        machine += f", beside a process with {args.busy} busy threads"
    print(f"`{args.model}` in the node: {machine}. Times in ms.\n\n{markdown(runs)}\n\n{line}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
