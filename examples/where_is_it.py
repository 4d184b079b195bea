#!/usr/bin/env python3
"""Click on an object and say where it is in every image: python3 examples/where_is_it.py 320 240

Needs a running ``sam2_node``. Ctrl-C ends it, and the node forgets the object.
"""

import sys

from sam2_ros.client import Sam2Client


def main() -> None:
    x, y = (int(text) for text in sys.argv[1:3])
    with Sam2Client() as sam2:
        added = sam2.add(points=(x, y))  # waits for the first mask; rejected prompts raise Sam2Error
        print(f"{added.object_id} is {added.state.name}, in the box {added.box_xyxy}")
        try:
            for result in sam2.results():  # image by image; result.message is the ROS message
                thing = result[added.object_id]
                print(result.stamp_ns, thing.state.name, thing.centroid_xy, f"{thing.mask.sum()} px")
        finally:
            sam2.remove(added.object_id)


if __name__ == "__main__":
    main()
