"""Zoom: the network looks at a window round an object in place of the whole image."""
