"""Draws pages, short videos and live streams from cut-outs, and writes what a host might say.

All that composes a scene is here: training, calibration, the benchmarks and `cope-live simulate` call it. It knows
pictures and random numbers, no data sets: `cope.data.rendered` makes a data set of it.

    synthetic      a frame or page from a background, cut-outs and their placements; backgrounds and cameras
    motion         how a host's hands bring, move, turn and cover a thing
    overlays       what platforms draw over a stream
    scenes         single frames and clips for training
    lives          the plan of a live stream, and `live_scene`, which draws its frames
    phrases        what a host says on a planned stream; `speech`: transcripts for rendered clips
"""
