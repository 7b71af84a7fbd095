"""Makes the helper modules beside it importable for the tests below."""
