"""Follow one object through a video: python track_video.py clip.mp4 320,240 overlay.mp4

The prompt is a click "x,y" on the object in the first frame, or a box "x0,y0,x1,y1" around it, in pixels.
"""

import argparse

import cv2
import numpy as np

from sam2_ros import load_tracker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("prompt", type=lambda text: [float(number) for number in text.split(",")])
    parser.add_argument("out")
    parser.add_argument("--checkpoint", help="a SAM 2 or 2.1 checkpoint; the package's own small model without one")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()

    video = cv2.VideoCapture(args.video)
    fps = video.get(cv2.CAP_PROP_FPS) or 25.0
    writer = None

    tracker = load_tracker(checkpoint=args.checkpoint, device=args.device)
    if len(args.prompt) == 4:
        tracker.add_prompt("object", box=args.prompt)
    else:
        tracker.add_prompt("object", points=[args.prompt], labels=[1])

    while True:
        delivered, image_bgr = video.read()
        if not delivered:
            break
        result = tracker.step(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB))
        for object_id, reason in result.rejected:
            parser.error(f"{object_id}: {reason}")
        tracked = result["object"]
        scores = f"{tracked.score:.2f} {tracked.mask_quality:.2f}"  # is it there? how good is the mask?
        print(result.frame_index, tracked.state.name, scores, tracked.box_xyxy)

        tint_bgr = np.where(tracked.mask[..., None], (60, 90, 255), image_bgr)
        overlay_bgr = cv2.addWeighted(image_bgr, 0.5, tint_bgr.astype(np.uint8), 0.5, 0)
        if writer is None:
            height, width = image_bgr.shape[:2]
            writer = cv2.VideoWriter(args.out, cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
        writer.write(overlay_bgr)

    if writer is None:
        parser.error(f"no frame could be read from {args.video}")
    writer.release()


if __name__ == "__main__":
    main()
