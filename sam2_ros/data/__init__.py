"""Readers, writers and training clips: numpy and OpenCV only."""
