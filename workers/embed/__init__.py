"""The embed role: frames and keywords in, windows out.

live_frames -> agent -> encoding (decode, encoder) -> windows (which frames and keywords make a window)
live_keywords -> agent ----------------------------------^        |
                                                encoding (embed the window) -> live_windows
"""
