"""A trained model at work: its folder (`artefact`, `identity`, `card`) and the one class that encodes (`encoder`)."""
