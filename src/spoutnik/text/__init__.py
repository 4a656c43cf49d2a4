"""Text in and out of a model: tokenizers, chat templates, and the think tags."""
