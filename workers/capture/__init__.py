"""The capture role: streams in, frames and speech out.

announcement -> agent -> stream (connections, epochs) -> player (a thread) -> source (PyAV) or relay (ffmpeg)
                                                            |
                                    pipeline: clock -> sampler -> JPEG     -> outbox -> live_frames
                                                    -> speech (cut at pauses) -> outbox -> live_speech
"""
