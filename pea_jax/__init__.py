"""Adapters that let a frozen English text-to-image model understand prompts in another language."""

__version__ = "0.1.0"
