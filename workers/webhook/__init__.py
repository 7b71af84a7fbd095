"""The webhook role: posts events to a platform that reads no Kafka.

`product_detected` -> agent -> one lane a partition, in order -> CloudEvents over HTTP, signed (`signing`)
"""
