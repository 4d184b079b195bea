"""Readers, writers and synthetic clips: numpy and OpenCV only."""
