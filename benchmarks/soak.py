"""Does the node's memory stay where it is? Thousands of images with objects that come and go, in lock-step.

    python benchmarks/soak.py --frames 10000 --objects 4 --csv soak.csv --plot soak.png
    python benchmarks/soak.py --misuse                  # beside somebody hostile, see misuse.py
    python benchmarks/soak.py --judge soak.csv          # of a run that was stopped, what it says so far

The real node runs as a process of its own and processes every image: the next one is sent when the masks of the last
are here. Every --act-every images, in turn: an object is replaced by another, the newest one is refined, that is
undone, and one is corrected on an image of the past; every fifth time all are cleared and added again. The CSV grows a
row at a time. Exit status 1 when the memory has drifted by more than the bound (soak_stats.py says how that is
measured), 2 when the run did not go through.

With --misuse the objects stay, and every third image comes with something hostile, at random from what misuse.py lists.
Then the status is also 1 unless the objects keep their ids and labels, every request is answered, and the p99 of the
latency is below three times its p50.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from geometry_msgs.msg import Point
from looped_camera import LoopedScene, scene_clicks, there_and_back
from misuse import Misuser, Report, failures, summary
from node_rig import (
    NODE,
    READY_TIMEOUT_S,
    Answer,
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
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from soak_plot import write_plot
from soak_stats import Sample, SampleFile, TooFewSamplesError, judge, read_process, read_samples
from std_msgs.msg import Header

from sam2_ros.commands.processes import ProcessError
from sam2_ros.commands.progress import Progress
from sam2_ros.demo.stream import MIN_SIDE_PX, Size
from sam2_ros.msg import Prompt
from sam2_ros.node.conversions import array_to_image, ns_to_stamp
from sam2_ros.srv import AddObjects, Clear, RefineObject, RemoveObjects

ANSWER_TIMEOUT_S = 120.0
PAST_FRAMES = 6  # how far back a prompt for the past goes
# Objects must be older than that when they are corrected there, and undoing reaches 30 images back.
ACT_EVERY = (PAST_FRAMES // 2, 25)
CLEAR_EVERY = 5  # rounds of actions
MISUSE_EVERY = 3  # images
SAMPLES = 200  # of a run, about


# What happens to the node ---------------------------------------------------------------------------------------------


class Action(enum.Enum):
    REPLACE = enum.auto()  # one object by another
    REFINE = enum.auto()
    UNDO = enum.auto()
    PAST = enum.auto()  # a correction for an image of the past
    CLEAR = enum.auto()


def action_before(frame: int, every: int) -> Action | None:
    """What is done before an image is shown, None for nothing. ``frame``: its number."""
    if frame == 0 or frame % every:
        return None
    number, turn = divmod(frame // every - 1, 4)
    if turn == 0:
        return Action.CLEAR if number % CLEAR_EVERY == CLEAR_EVERY - 1 else Action.REPLACE
    return (Action.REFINE, Action.UNDO, Action.PAST)[turn - 1]


class Soak:
    """The camera and the user of a node, in lock-step with it."""

    def __init__(self, client: NodeClient, args: argparse.Namespace) -> None:
        size = Size(args.width, args.height)
        self._client, self._args = client, args
        self._messages = [array_to_image(image, "rgb8", Header()) for image in LoopedScene(size).images_rgb]
        self._clicks = scene_clicks(size)
        reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._camera = client.node.create_publisher(Image, "/image", reliable)
        self._stamps_ns: deque[int] = deque(maxlen=PAST_FRAMES)
        self._objects: deque[str] = deque()
        self._labels: dict[str, int] = {}  # of the objects, with misuse
        self._misuser: Misuser | None = None
        self._added = 0
        self._cpu_s = 0.0  # of the node, at the latest sample

    def run(self, file: SampleFile | None) -> list[Sample]:
        """Show all images; what was sampled. Raises BenchmarkError when the node does not do what it is asked for."""
        self._meet()
        self._add(self._args.objects)
        self._cpu_s = read_process(self._client.group.pid("node")).cpu_s
        samples: list[Sample] = []
        answers: list[Answer] = []
        start_s, progress = time.monotonic(), Progress("image")
        for frame in range(self._args.frames):
            self._act_before(frame)
            answers.append(self._show(frame))
            if (frame + 1) % self._args.sample_every and frame + 1 < self._args.frames:
                continue
            samples.append(self._sample(frame + 1, time.monotonic() - start_s, answers))
            answers.clear()
            self._client.forget()
            if file is not None:
                file.add(samples[-1])
            latest = samples[-1]
            progress(f"{latest.rss_kib / 1024:.1f} MiB resident", latest.frame, self._args.frames)
        progress.clear()
        if self._misuser is not None:
            self._misuser.finish()
        return samples

    def be_misused(self, folder: Path) -> Report:
        """Let somebody hostile act in place of the user; what comes of it, filled by ``run``."""
        self._misuser = Misuser(self._client, (self._args.height, self._args.width), self._args.seed, folder)
        return self._misuser.report

    def _act_before(self, frame: int) -> None:
        if self._misuser is None:
            self._act(action_before(frame, self._args.act_every))
        elif frame % MISUSE_EVERY == MISUSE_EVERY - 1:
            self._misuser.act(self._objects[0])

    def _meet(self) -> None:
        """Show images until the first answer: before all have found each other, some get lost."""
        self._client.wait_for_node()
        self._client.spin_until(
            lambda: self._camera.get_subscription_count() > 0, READY_TIMEOUT_S, "the node to listen"
        )
        end_s = time.monotonic() + READY_TIMEOUT_S
        while not self._client.answers:
            if time.monotonic() > end_s:
                raise BenchmarkError(f"the node answered to no image within {READY_TIMEOUT_S:.0f} s")
            self._publish(0)
            with contextlib.suppress(BenchmarkError):
                self._client.spin_until(lambda: bool(self._client.answers), 1.0, "the first answer")

    def _publish(self, frame: int) -> int:
        message = self._messages[there_and_back(frame, len(self._messages))]
        stamp_ns = self._client.now_ns()
        message.header = Header(stamp=ns_to_stamp(stamp_ns), frame_id="camera")
        self._camera.publish(message)
        self._stamps_ns.append(stamp_ns)
        return stamp_ns

    def _show(self, frame: int) -> Answer:
        stamp_ns = self._publish(frame)
        self._client.spin_until(
            lambda: stamp_ns in self._client.answers, ANSWER_TIMEOUT_S, f"the answer to image {frame}"
        )
        answer = self._client.answers[stamp_ns]
        if self._misuser is not None:
            self._labels = self._labels or {object_id: answer.labels.get(object_id, 0) for object_id in self._objects}
            self._misuser.tidy(answer.labels, self._labels)
            if frame >= self._args.frames // 10:  # warm
                self._misuser.report.latencies_ms.append(answer.latency_ms)
        elif answer.object_count != len(self._objects):
            raise BenchmarkError(f"expected {len(self._objects)} objects at image {frame}, got {answer.object_count}")
        return answer

    def _sample(self, frame: int, elapsed_s: float, answers: Sequence[Answer]) -> Sample:
        use = read_process(self._client.group.pid("node"))
        cpu_ms = 1e3 * (use.cpu_s - self._cpu_s) / len(answers)
        self._cpu_s = use.cpu_s
        return Sample(
            frame=frame,
            elapsed_s=round(elapsed_s, 1),
            rss_kib=use.rss_kib,
            private_kib=use.private_kib,
            shared_kib=use.rss_kib - use.private_kib,
            threads=use.threads,
            open_files=use.open_files,
            objects=answers[-1].object_count,
            latency_ms_p50=round(float(np.median([answer.latency_ms for answer in answers])), 3),
            inference_ms_p50=round(float(np.median([answer.inference_ms for answer in answers])), 3),
            cpu_ms=round(cpu_ms, 2),
        )

    # What the user does; everything is answered before the next image is shown

    def _act(self, action: Action | None) -> None:
        if action is Action.REPLACE:
            self._client.call(RemoveObjects, f"{NODE}/remove_objects", object_ids=[self._objects.popleft()])
            self._add(1)
        elif action is Action.REFINE:
            self._correct(self._objects[-1], Prompt.REFINE)
        elif action is Action.UNDO:
            self._correct(self._objects[-1], Prompt.UNDO)
        elif action is Action.PAST:
            self._correct(self._objects[0], Prompt.REFINE, stamp_ns=self._stamps_ns[0])
        elif action is Action.CLEAR:
            self._client.call(Clear, f"{NODE}/clear")
            self._objects.clear()
            self._add(self._args.objects)

    def _add(self, count: int) -> None:
        prompts = []
        for _ in range(count):
            prompts.append(click_prompt(f"object{self._added}", self._clicks[self._added % len(self._clicks)]))
            self._added += 1
        self._client.call(AddObjects, f"{NODE}/add_objects", prompts=prompts)
        self._objects.extend(prompt.object_id for prompt in prompts)

    def _correct(self, object_id: str, action: int, stamp_ns: int = 0) -> None:
        """One click that says that the image's corner is not on the object, or take it back."""
        header = Header(stamp=ns_to_stamp(stamp_ns))
        prompt = click_prompt(object_id, Point(x=0.02, y=0.02), point_labels=[0], action=action, header=header)
        self._client.call(RefineObject, f"{NODE}/refine_object", prompt=prompt)


def soak(args: argparse.Namespace) -> tuple[list[Sample], Report | None]:
    """A run; its samples, and with misuse what came of that."""
    parameters: dict[str, object] = {
        "process_every_frame": True,
        "image_reliability": "reliable",
        "image_timeout_s": READY_TIMEOUT_S,
        "service_timeout_s": ANSWER_TIMEOUT_S / 2,
    }
    if args.misuse:
        parameters |= {"service_timeout_s": 5.0, "use_depth": True}
    with contextlib.ExitStack() as held:
        file = None
        if args.csv is not None:
            args.csv.parent.mkdir(parents=True, exist_ok=True)
            file = SampleFile(held.enter_context(args.csv.open("w", newline="", encoding="utf-8")))
        client = held.enter_context(node_at_work([node_program(args, **parameters)]))
        run = Soak(client, args)
        report = run.be_misused(Path(held.enter_context(tempfile.TemporaryDirectory()))) if args.misuse else None
        return run.run(file), report


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_node_options(parser)
    parser.add_argument("--frames", type=positive, default=10_000, help="images that are processed, default 10000")
    parser.add_argument("--objects", type=positive, default=4, help="how many are tracked at a time, default 4")
    parser.add_argument("--width", type=positive, default=640, help="of the images, default 640")
    parser.add_argument("--height", type=positive, default=480, help="of the images, default 480")
    parser.add_argument("--act-every", type=positive, default=10, help="images between two actions, default 10")
    parser.add_argument("--misuse", action="store_true", help="with somebody hostile beside the user")
    parser.add_argument("--seed", type=int, default=0, help="of what is done with --misuse, default 0")
    parser.add_argument("--sample-every", type=positive, help="images between two samples; default: 200 samples")
    parser.add_argument("--warmup-frames", type=int, help="images before the drift is looked at; default: a tenth")
    parser.add_argument("--bound-percent", type=float, default=2.0, help="largest drift of the memory, default 2")
    parser.add_argument("--csv", type=Path, help="write the samples into this file")
    parser.add_argument("--plot", type=Path, help="draw them into this PNG file")
    parser.add_argument("--judge", type=Path, help="run nothing: what the samples of this CSV say")
    args = parser.parse_args(argv)
    if not ACT_EVERY[0] <= args.act_every <= ACT_EVERY[1]:
        parser.error(f"--act-every: expected {ACT_EVERY[0]}..{ACT_EVERY[1]}, got {args.act_every}")
    if min(args.width, args.height) < MIN_SIDE_PX:
        parser.error(f"expected images of {MIN_SIDE_PX} px or more each way, got {args.width} x {args.height}")
    args.sample_every = args.sample_every or max(args.frames // SAMPLES, 1)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    try:
        samples, report = (read_samples(args.judge), None) if args.judge is not None else soak(args)
        frames = samples[-1].frame if samples else 0
        warmup_frames = args.warmup_frames if args.warmup_frames is not None else frames // 10
        if args.plot is not None:
            write_plot(args.plot, samples, warmup_frames)
        verdict = judge(samples, warmup_frames=warmup_frames, bound_percent=args.bound_percent)
    except (BenchmarkError, ProcessError, TooFewSamplesError, OSError) as error:
        print(f"soak: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    if args.judge is None:
        say(describe_machine(args.device, args.threads))
    first, last = samples[0], samples[-1]
    print(f"{last.frame} images in {last.elapsed_s:.0f} s, {last.objects} objects at a time")
    print(f"RSS {first.rss_kib / 1024:.1f} MiB at image {first.frame}, {last.rss_kib / 1024:.1f} MiB at the end")
    print(f"threads {first.threads} -> {last.threads}, open files {first.open_files} -> {last.open_files}")
    print(f"drift of the latency {verdict.latency_percent:.1f} %, of CPU time per image {verdict.cpu_percent:.1f} %")
    wrong: list[str] = []
    if report is not None:
        print(summary(report))
        wrong = failures(report, verdict)
        print("\n".join(f"FAILED: {each}" for each in wrong) or "the node has stood it")
    print(verdict, flush=True)
    return verdict.status or int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
