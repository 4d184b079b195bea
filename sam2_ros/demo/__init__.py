"""The programs of ``make demo``: a camera, a client with its report, and the rendered tabletop."""
