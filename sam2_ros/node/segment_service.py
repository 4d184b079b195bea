"""``~/segment_image`` between messages and ``segmenting``."""

from __future__ import annotations

from typing import Any

import numpy as np
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from sam2_ros.image_io.encodings import ImageError, image_to_rgb
from sam2_ros.msg import SegmentedMask
from sam2_ros.node.conversions import array_to_image, read_prompt
from sam2_ros.node.optional_cv_bridge import read_as_rgb
from sam2_ros.session.segmentation import Segmentation, SegmentedThing, SegmentRequest
from sam2_ros.tracking.transforms import tight_box_xyxy
from sam2_ros.tracking.types import PromptError


def read_request(message: Any) -> SegmentRequest:
    """A ``SegmentImage`` request as the session takes it; PromptError when the message itself makes no sense."""
    image = message.image
    is_empty = image.width == 0 and image.height == 0 and len(image.data) == 0
    try:
        image_rgb = None if is_empty else image_to_rgb(image, read_as_rgb)
    except ImageError as error:
        raise PromptError(f"the image cannot be read: {error}") from None
    prompts = []
    for number, prompt in enumerate(message.prompts):
        try:
            prompts.append(read_prompt(prompt))
        except PromptError as error:
            raise PromptError(f"prompts[{number}]: {error}") from None
    return SegmentRequest(image.header, image_rgb, tuple(prompts), message.everything, message.multimask)


def fill_response(response: Any, answer: Segmentation) -> None:
    """A ``SegmentImage`` response of a request that was carried out."""
    response.header = answer.header if isinstance(answer.header, Header) else Header()
    response.width, response.height = answer.width, answer.height
    response.masks = [_mask_to_message(thing, response.header) for thing in answer.things]
    response.success, response.message = True, f"{len(answer.things)} mask(s)"


def _mask_to_message(thing: SegmentedThing, header: Header) -> SegmentedMask:
    message = SegmentedMask(prompt_index=thing.prompt_index, score=thing.score, area=int(thing.mask.sum()))
    box = tight_box_xyxy(thing.mask)
    if box is not None:
        x0, y0, x1, y1 = box
        message.roi = RegionOfInterest(x_offset=x0, y_offset=y0, width=x1 - x0, height=y1 - y0)
        message.mask = array_to_image(thing.mask[y0:y1, x0:x1].astype(np.uint8) * 255, "mono8", header)
    return message
