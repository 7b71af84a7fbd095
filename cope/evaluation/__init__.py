"""Measures a model: retrieval, few shots, rooms, the long tail, calibration, pictures to look at, one report."""
