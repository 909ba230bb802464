"""The host's side of the wire: the protocol without I/O, links for asyncio. Knows not what tasks and objects mean."""
