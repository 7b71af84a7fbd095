"""What travels on the topics, for readers outside this project: JSON Schema and AsyncAPI, both generated."""
