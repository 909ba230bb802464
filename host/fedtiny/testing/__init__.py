"""Nodes and fleets as fixtures: the same test on this computer, in emulators and on boards (docs/testing.md)."""
