"""What flows where: records, topics, settings, delivery, the embedded broker, and the index.

`worker` runs one role; it joins `app` (Faust), `delivery`, `health` and the HTTP server. `topic_log` reads and
writes topics without a consumer group.
"""
