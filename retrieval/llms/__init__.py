"""Language models by name: offline, in process, behind an OpenAI-compatible server, Ollama or a vendor's API."""

from __future__ import annotations

from retrieval.llms.base import ModelError, ModelTimeout, ModelTraits
from retrieval.llms.factory import OFFLINE, load_model
from retrieval.llms.traits import traits

__all__ = ["OFFLINE", "ModelError", "ModelTimeout", "ModelTraits", "load_model", "traits"]
