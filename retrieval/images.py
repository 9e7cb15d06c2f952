"""Decoding images from anywhere into upright RGB, within stated bounds."""

from __future__ import annotations


class ImageError(Exception):
    """A file or upload that cannot be used as an image; says why in one line."""
