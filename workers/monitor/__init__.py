"""The monitor role: follows the topics of the other roles, and serves the state over HTTP.

all topics, lightly -> agent -> state (what is on now) -> feed (what changed) -> http (JSON and server-sent events)
"""
