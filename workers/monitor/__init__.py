"""The monitor role: follows what the other roles tell, and serves it over HTTP.

all topics, lightly -> agent -> state (what is on now) -> feed (what changed) -> http (JSON and server-sent events)
"""
