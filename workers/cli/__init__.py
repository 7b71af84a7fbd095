"""`cope-live`: the command line and what its commands run.

`main` has the commands; `watch` runs all roles in one process, `simulate` renders streams, `score` compares events with
the truth, `publish` writes catalogues and announcements to the topics, `roles` starts a worker.
"""
