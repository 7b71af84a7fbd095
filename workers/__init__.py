"""The roles, each a plain core and a thin Kafka agent, and the command line (`cli`)."""
