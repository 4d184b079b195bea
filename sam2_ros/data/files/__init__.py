"""Readers and writers: images, videos, rosbags, masks and the layouts of data sets."""
