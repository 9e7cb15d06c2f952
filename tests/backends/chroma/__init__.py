"""Tests of Chroma."""
