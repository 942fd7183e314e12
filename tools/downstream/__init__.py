"""A ControlNet and a style LoRA of the embedded teacher, and the pictures of docs/downstream.md."""
