"""All Prometheus metrics: prefix `cope_`, base units. Stream ids are never labels: they would be too many."""

from prometheus_client import Counter, Gauge, Histogram

# Media work takes milliseconds to seconds.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Latencies that a viewer notices: 1 s to a minute.
_LATENCY = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 30.0, 60.0)
_PROBABILITY = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)

# Capture
FRAMES_CAPTURED = Counter("cope_frames_captured_total", "Frames decoded from streams")
FRAMES_SAMPLED = Counter("cope_frames_sampled_total", "Frames sent to live_frames")
FRAMES_DROPPED = Counter("cope_frames_dropped_total", "Live frames dropped on purpose", ["reason"])
SPEECH_DROPPED = Counter("cope_speech_dropped_seconds_total", "Live sound dropped on purpose", ["reason"])
PACKETS_DAMAGED = Counter("cope_packets_damaged_total", "Packets and pictures of streams that could not be decoded")
MEDIA_LOST = Counter("cope_media_lost_seconds_total", "Holes in the time stamps of streams", ["kind"])
RECONNECTS = Counter("cope_reconnects_total", "Connections to a stream opened after its first")
LAST_FRAME_AGE = Gauge("cope_last_frame_age_seconds", "Age of the last frame of the stream that waits longest")
STREAMS = Gauge("cope_streams", "Streams that this process captures", ["state"])

# Transcribe
SPEECH_SECONDS = Counter("cope_speech_seconds_total", "Media seconds of speech transcribed")
ASR_REAL_TIME_FACTOR = Histogram(
    "cope_asr_real_time_factor_ratio",
    "Seconds of work per second of speech",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)

# Embed, catalog
BATCH_SIZE = Histogram("cope_batch_size", "Inputs in one pass of a model", ["stage"], buckets=(1, 2, 4, 8, 16, 32, 64))
STAGE_SECONDS = Histogram("cope_stage_seconds", "Time spent in one step of one stage", ["stage"], buckets=_SECONDS)
WINDOWS = Counter("cope_windows_total", "Windows closed, by whether all their keywords were there", ["keywords"])
PAGES = Counter("cope_pages_total", "Product pages encoded", ["result"])
INDEX_PRODUCTS = Gauge("cope_index_products", "Products in the index that this process searches")

# Recognize
EVENTS = Counter("cope_events_total", "Events sent to product_detected", ["status"])
EVENT_LATENCY = Histogram(
    "cope_event_latency_seconds", "From the capture of the newest frame looked at to its event", buckets=_LATENCY
)
MATCH_CONFIDENCE = Histogram("cope_match_confidence", "Confidence of started sightings", buckets=_PROBABILITY)
REJECTED = Counter("cope_windows_rejected_total", "Windows with candidates, none of which was believed to be on")
BAG_UNKNOWN = Counter("cope_bag_unknown_products_total", "Products of shopping bags that the catalogue does not have")

# Evidence
EVIDENCE_FRAMES = Counter("cope_evidence_frames_total", "Frames of detections that were to be kept", ["result"])
EVIDENCE_BYTES = Gauge("cope_evidence_bytes", "What kept evidence takes, as of the last sweep")

# Webhook
WEBHOOK_POSTS = Counter("cope_webhook_posts_total", "Events posted, by what became of them", ["result"])

# Monitor
MONITOR_STREAMS = Gauge("cope_monitor_streams", "Streams that the monitor knows, in all processes' captures", ["state"])
MONITOR_CLIENTS = Gauge("cope_monitor_clients", "Clients that follow the monitor's change feed")
MONITOR_CLIENTS_DROPPED = Counter(
    "cope_monitor_clients_dropped_total", "Clients of the change feed refused or cut off", ["reason"]
)
MONITOR_LEFT_OUT = Counter(
    "cope_monitor_records_left_out_total", "Records of streams beyond the most that the monitor keeps"
)

# Flow
DEAD_LETTERS = Counter("cope_dead_letters_total", "Records sent to a dead-letter queue", ["topic", "error"])
RECORDS_SKIPPED = Counter("cope_records_skipped_total", "Unreadable records skipped by readers of a log", ["topic"])
RECORDS_RECOVERED = Counter(
    "cope_records_recovered_total", "Records that the consumer had skipped, read again from the log", ["topic"]
)
RECORDS_LOST = Counter(
    "cope_records_lost_total", "Records that retention deleted before the role had read them", ["role", "topic"]
)
CONSUMER_LAG = Gauge("cope_consumer_lag_records", "Records at the broker that are not acked yet", ["role", "topic"])
EVENT_LOOP_LAG = Gauge("cope_event_loop_lag_seconds", "How late the event loop ran a timer", ["role"])
