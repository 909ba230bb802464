"""The round loop: no I/O, no clock, and no knowledge of which kind of node answers."""
