"""Pixels and boxes, before any model: decoding, cutting out, cropping, and the choice of regions."""
