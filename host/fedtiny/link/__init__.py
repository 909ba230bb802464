"""The host's side of the wire to nodes: protocol without I/O, and carriers for asyncio. Knows nothing of models or of what tasks mean."""
