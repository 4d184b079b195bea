"""The node's parameters: one schema for declaration, checks, typed access, ``config/sam2_node.yaml`` and the docs.

``NodeParameters`` is the schema; ``node/ros_parameters.py`` declares the same fields on a node.
``python -m sam2_ros.session.parameters markdown`` (or ``yaml``) prints the generated file.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sam2_ros.model.config import MODELS
from sam2_ros.session.parameter_spec import (
    ParameterError,
    ParameterSpec,
    camera_names,
    markdown_table,
    yaml_defaults,
)

MODEL_NAMES = ("auto", *MODELS)
BUFFERED_IMAGES_PER_SECOND = 30


def _parameter(default: Any, description: str, **limits: Any) -> Any:
    return field(default=default, metadata={"description": description, **limits})


@dataclass(frozen=True)
class NodeParameters:
    """All parameters with their values. Build one with ``parse``, which checks them."""

    model: str = _parameter(
        "auto",
        "Which network to run; `auto` = the one that `checkpoint` is for, nano without a checkpoint.",
        choices=MODEL_NAMES,
    )
    checkpoint: str = _parameter(
        "", "Path of a weights file or folder; empty = in the package (nano), else the official file, fetched once."
    )
    checkpoint_sha256: str = _parameter(
        "", "SHA-256 that the `checkpoint` file must have, 64 hexadecimal digits; empty = any."
    )
    weights: str = _parameter(
        "embedded",
        "Where weights come from without `checkpoint`: `embedded`, or `random` for a test run whose masks mean "
        "nothing.",
        choices=("embedded", "random"),
    )
    device: str = _parameter(
        "auto", "Where the model runs: `auto` (a GPU when there is one), `cpu`, `cuda`, `cuda:1` ..."
    )
    precision: str = _parameter(
        "auto",
        "Type that the heavy parts of the model run in: `auto` = bfloat16 where the device computes it faster and the "
        "masks stay nearly the same, else float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    image_size: int = _parameter(
        0,
        "Side of the model's square input, px, a multiple of 32 (edgetam: 256); 0 = its own. Smaller: faster, coarser.",
        minimum=0,
        maximum=4096,
    )
    memory_pooling: int = _parameter(
        1,
        "Attend to N x N memory tokens as one: faster with SAM 2's sizes, slightly other masks; 1 = exact. N must "
        "divide the side of the feature map, `image_size` / 16.",
        minimum=1,
        maximum=16,
    )
    recent_memories: int = _parameter(
        0,
        "Number of earlier frames whose spatial memories are attended to; 0 = as many as the model was trained with "
        "(nano 3, SAM 2 6). Fewer are faster.",
        minimum=0,
        maximum=16,
    )
    zoom: bool = _parameter(
        False,
        "Look for one or two objects in windows round their last masks: finer, one image encoding for each. The images "
        "of `prompt_buffer_s` are then kept whole, 6 MB each at 1080p.",
    )
    when_full: str = _parameter(
        "reject",
        "What a prompt for one object more than `max_objects` does: it is rejected, or with `drop_lost` the LOST "
        "object that was seen longest ago is removed for it, if there is one.",
        choices=("reject", "drop_lost"),
        live=True,
    )
    memory_selection: str = _parameter(
        "auto",
        "Which frames an object's memory is made of: `recent`, those just before, as SAM 2 does; `confident`, where it "
        "was seen; `distractor`, further apart, and where told from a rival; `auto`: this for nano, else recent.",
        choices=("auto", "recent", "confident", "distractor"),
    )
    crowd_suppression: bool = _parameter(
        False,
        "Of two objects with nearly the same mask the one that was hidden more recently loses it in that image, and "
        "does not remember the image.",
    )
    lookalike_doubt: bool = _parameter(False, "Look-alikes that met go by motion, or are OCCLUDED until prompted.")
    scene_changes: bool = _parameter(
        True,
        "Notice cuts, and a camera that is covered or frozen: an event each; no memory reaches across a cut, and "
        "nothing is tracked in a covered camera.",
    )
    encoder_engine: str = _parameter(
        "auto", "Encodes images; `auto` = the fastest installed.", choices=("auto", "torch", "onnxruntime", "openvino")
    )
    compile: bool = _parameter(False, "Compile the model while configuring: minutes, for faster steps on a GPU.")
    num_threads: int = _parameter(
        0,
        "CPU threads of the model, of all `cameras` of the process; 0 = PyTorch's default, fewer beside other load.",
        minimum=0,
        maximum=256,
    )
    autostart: bool = _parameter(
        True, "Configure and activate by itself at start. false: wait for a lifecycle manager or `ros2 lifecycle set`."
    )
    cameras: str = _parameter(
        "",
        "Names of cameras, separated by commas: this process then has a node for each, in a namespace of that name, "
        "and one set of weights for all. Empty = one node. Read when the process starts.",
    )
    image_reliability: str = _parameter(
        "best_effort",
        "QoS of the image subscription. best_effort receives from every publisher; reliable only from reliable ones, "
        "and never skips an image on the wire.",
        choices=("best_effort", "reliable"),
    )
    image_transport: str = _parameter(
        "raw",
        "raw, or `compressed`: JPEG or PNG images from the image topic's name + `/compressed`.",
        choices=("raw", "compressed"),
    )
    max_image_megapixels: float = _parameter(
        36.0,
        "Images with more million pixels are rejected, compressed ones before they are decoded; 36 is more than 8K "
        "video has.",
        minimum=0.01,
        maximum=1000.0,
        live=True,
    )
    use_depth: bool = _parameter(
        False,
        "Positions, sizes, markers and points, from `depth` (aligned with the image) and `camera_info`.",
    )
    output_reliability: str = _parameter("reliable", "QoS of published topics.", choices=("reliable", "best_effort"))
    max_objects: int = _parameter(
        64,
        "Objects that may be tracked at once: the time of a step grows with their number. A prompt for one more, and a "
        "session with more, are rejected; 0 = no limit.",
        minimum=0,
        maximum=65535,
        live=True,
    )
    lost_after_frames: int = _parameter(
        30, "An object that was not visible for more frames than this is LOST instead of OCCLUDED.", minimum=1
    )
    recover_after_frames: int = _parameter(
        2, "An OCCLUDED or LOST object is TRACKED again once it is visible in this many frames in a row.", minimum=1
    )
    lost_after_s: float = _parameter(
        0.0,
        "Above 0 in place of `lost_after_frames`, by the stamps of the images [s].",
        minimum=0.0,
        maximum=86400.0,
    )
    recover_after_s: float = _parameter(
        0.0,
        "Above 0 in place of `recover_after_frames`: an object must be visible for so long [s].",
        minimum=0.0,
        maximum=60.0,
    )
    remove_lost_after_s: float = _parameter(
        0.0,
        "Remove an object that has been LOST for so long, by the stamps of the images [s]; 0 = never.",
        minimum=0.0,
        maximum=1e6,
        live=True,
    )
    unsure_below: float = _parameter(
        0.5,
        "A mask whose `mask_quality` is below this gets a question mark in the overlay, and the markers show the "
        "number; 0 = none does.",
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    warn_age_ms: float = _parameter(
        0.0, "/diagnostics: WARN above this p95 age of masks; 0 = never.", minimum=0.0, maximum=1e6, live=True
    )
    error_age_ms: float = _parameter(0.0, "As `warn_age_ms`, for ERROR.", minimum=0.0, maximum=1e6, live=True)
    warn_memory_mb: int = _parameter(
        0, "/diagnostics: WARN above this resident memory; 0 = never.", minimum=0, live=True
    )
    error_memory_mb: int = _parameter(0, "As `warn_memory_mb`, for ERROR.", minimum=0, live=True)
    process_every_frame: bool = _parameter(
        False,
        "Process every image in order instead of the newest one, for exact replay of bags: up to 64 images queue up, "
        "further ones are dropped, and the log says so. To miss none on the wire, it needs a reliable publisher and "
        "`image_reliability: reliable`.",
    )
    max_rate_hz: float = _parameter(
        0.0, "Process at most this many images a second; 0 = no limit.", minimum=0.0, maximum=1000.0, live=True
    )
    max_image_age_s: float = _parameter(
        0.0,
        "Skip images whose stamp is older than this when the model is free [s]; 0 = process all.",
        minimum=0.0,
        maximum=3600.0,
        live=True,
    )
    prompt_buffer_s: float = _parameter(
        1.0,
        "How far back a prompt may be for a past image, and be undone [s]; counted in images, 30 for a second, so that "
        "slower cameras reach further back. Each image takes 0.8 MB with nano (at most 1.2 MB while there is no "
        "object), 17 MB with SAM 2. 0 = stamps of prompts are ignored: each is for the next image.",
        minimum=0.0,
        maximum=10.0,
    )
    prompt_slop_s: float = _parameter(
        0.5,
        "How far the stamp of a prompt may be from its image's [s], or it is rejected; with a slow model 3/4 of the "
        "usual time between two images, at most five times this.",
        minimum=0.0,
        maximum=10.0,
    )
    catchup_budget_ms: float = _parameter(
        30.0,
        "Time per image for replaying objects with a prompt for a past image up to the newest one [ms]; at least two "
        "images are replayed in any case.",
        minimum=0.0,
        maximum=10000.0,
    )
    service_timeout_s: float = _parameter(
        5.0,
        "How long a service waits for the model at most [s], unless the request says so itself.",
        minimum=0.01,
        maximum=3600.0,
        live=True,
    )
    session_dir: str = _parameter(
        "",
        "Folder that `~/save_session` and `~/load_session` stay in, links resolved: relative paths begin there, others "
        "must lead into it. Empty = any file that the node's user may read or write.",
    )
    image_timeout_s: float = _parameter(
        5.0, "Warn when no image came for this long [s].", minimum=0.1, maximum=3600.0, live=True
    )
    publish_label_image: bool = _parameter(True, "Publish `~/label_image` and `~/label_image_color`.", live=True)
    publish_overlay: bool = _parameter(True, "Publish `~/overlay` while somebody subscribes to it.", live=True)
    jpeg_quality: int = _parameter(80, "Quality of `~/overlay/compressed`.", minimum=1, maximum=100, live=True)
    publish_masks: bool = _parameter(False, "Put each object's mask, cropped to its roi, into `~/objects`.", live=True)
    publish_detections: bool = _parameter(
        True, "Publish `~/detections` and `~/label_info`, where vision_msgs is installed.", live=True
    )
    publish_markers: bool = _parameter(True, "Publish `~/markers` while somebody subscribes to it.", live=True)
    publish_object_points: bool = _parameter(
        True, "Publish `~/object_points` while somebody subscribes to it.", live=True
    )
    publish_target_pose: bool = _parameter(True, "Publish `~/target_pose`.", live=True)
    publish_tf: bool = _parameter(
        True,
        "Send each object's frame, `<node>/<object id>`, below the camera's to TF, where tf2_ros is installed.",
        live=True,
    )
    rectified: bool = _parameter(
        False,
        "The images are rectified (`image_rect`, and depth aligned with it): use P of `camera_info` instead of K.",
        live=True,
    )
    depth_scale: float = _parameter(
        0.001,
        "Metres of one unit of 16UC1 depth; REP-118 says millimetres, some drivers depart from it.",
        minimum=1e-6,
        maximum=1.0,
        live=True,
    )
    depth_slop_s: float = _parameter(
        0.05,
        "How far the stamps of an image and its depth image may be apart [s].",
        minimum=0.0,
        maximum=10.0,
        live=True,
    )
    ignore_classes: str = _parameter(
        "ignore",
        "Classes of objects, separated by commas, to ignore: their pixels are in no point cloud, and they are the "
        "target only when selected.",
        live=True,
    )
    keep_out_margin_px: int = _parameter(
        5,
        "Pixels around objects of `ignore_classes` that are kept out of clouds as well [px].",
        minimum=0,
        maximum=500,
        live=True,
    )
    click_mode: str = _parameter(
        "add",
        "What a message on `click` does: `add` an object, `refine` the `selected_object`, or `auto`: refine it when it "
        "is known, else add it under that name.",
        choices=("add", "refine", "auto"),
        live=True,
    )
    detection_mode: str = _parameter(
        "recover",
        "What boxes on `detections` do (where vision_msgs is installed): `recover` the LOST object of their class, "
        "`add` objects for the others too, or nothing.",
        choices=("off", "recover", "add"),
        live=True,
    )
    detection_classes: str = _parameter("", "Classes of detections to use, with commas; empty = all.", live=True)
    detection_min_score: float = _parameter(
        0.5, "Detections with a lower score are ignored.", minimum=0.0, maximum=1.0, live=True
    )
    detection_iou: float = _parameter(
        0.3,
        "From this intersection over union on, a detection is the visible object that it overlaps.",
        minimum=0.01,
        maximum=1.0,
        live=True,
    )
    detection_refresh_frames: int = _parameter(
        0,
        "A sure detection (score of 0.8 or more) that overlaps an object of its class by half corrects that object's "
        "mask and memory, each object once in so many images; 0 = never.",
        minimum=0,
        maximum=100000,
        live=True,
    )
    selected_object: str = _parameter(
        "",
        "Object id that clicks refine and whose pose is `~/target_pose`; empty = no object for clicks, and the pose of "
        "the TRACKED object that was seen first.",
        live=True,
    )

    @property
    def max_image_pixels(self) -> int:
        """``max_image_megapixels`` in pixels."""
        return round(self.max_image_megapixels * 1e6)

    @property
    def buffer_frames(self) -> int:
        """``prompt_buffer_s`` in images."""
        return math.ceil(self.prompt_buffer_s * BUFFERED_IMAGES_PER_SECOND)


def schema() -> tuple[ParameterSpec, ...]:
    """All parameters in the order of ``NodeParameters``."""
    entries: tuple[Any, ...] = fields(NodeParameters)
    return tuple(ParameterSpec(name=entry.name, default=entry.default, **entry.metadata) for entry in entries)


def parse(values: Mapping[str, object]) -> NodeParameters:
    """Check ``values`` (missing ones take their default); ParameterError on an unknown name, wrong type or range."""
    specs = {spec.name: spec for spec in schema()}
    unknown = sorted(set(values) - set(specs))
    if unknown:
        raise ParameterError(f"unknown parameter(s) {', '.join(unknown)}; known: {', '.join(specs)}")
    checked: dict[str, Any] = {name: specs[name].check(value) for name, value in values.items()}
    parameters = NodeParameters(**checked)
    if parameters.checkpoint and parameters.weights == "random":
        raise ParameterError("weights is 'random' and checkpoint is set: use one of them")
    limits = [name for name in ("max_rate_hz", "max_image_age_s") if getattr(parameters, name) > 0]
    if parameters.process_every_frame and limits:
        raise ParameterError(f"process_every_frame is true and {' and '.join(limits)} would leave images out: use 0")
    camera_names(parameters.cameras)
    if parameters.checkpoint_sha256 and not parameters.checkpoint:
        raise ParameterError("checkpoint_sha256 is set without a checkpoint to compare it with")
    return parameters


def render_markdown() -> str:
    """The parameter table, as it stands in ``docs/parameters.md``."""
    return markdown_table(schema())


def render_yaml() -> str:
    """The defaults with their descriptions, as they stand in ``config/sam2_node.yaml``."""
    return yaml_defaults(schema())


def main(arguments: list[str]) -> int:
    renderers = {"markdown": render_markdown, "yaml": render_yaml}
    if len(arguments) != 1 or arguments[0] not in renderers:
        print(f"expected one of: {', '.join(renderers)}; got {arguments}", file=sys.stderr)
        return 2
    print(renderers[arguments[0]](), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
