"""Renders live-commerce streams from a catalogue, with their truth: a tool for demos, tests and tuning."""
