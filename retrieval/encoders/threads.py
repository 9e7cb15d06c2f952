"""Threads for networks too small to be spread over cores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from retrieval.images.decode import available_cores


def encoder_threads() -> ThreadPoolExecutor:
    """Start a thread for each core, to run networks that compute on the thread that calls them.

    Small networks are run on several cores this way: spread over cores, every layer would end in a barrier, and one
    core that is busy elsewhere, with decoding for instance, would hold up all of them.
    """
    return ThreadPoolExecutor(available_cores(), thread_name_prefix="encode")
