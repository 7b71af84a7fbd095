"""The evidence role: keeps the pictures that detections rest on.

`product_detected` -> agent -> single frames of `live_frames` and page pictures, on demand -> pictures (faces blurred,
crops) -> `topology.evidence`
"""
