"""The generator: many requests at once over one model, with a cache. See `generator.Engine`."""
