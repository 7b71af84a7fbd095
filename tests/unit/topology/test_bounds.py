"""What is passed on of a page's pictures."""

from topology.bounds import fitting
from topology.records import PageVectors


def test_pictures_are_named_without_what_is_no_address_and_without_users() -> None:
    uris = ("http://ann:hunter2@host/a@b.jpg?w=9", "data:image/png;base64,AAAA", "x" * 3_000, "pictures/a@b.jpg")
    record = PageVectors(product_id="p", source_partition=0, source_offset=0, model_version="m", images=uris)
    assert fitting(record).images == ("http://host/a@b.jpg?w=9", "", "", "pictures/a@b.jpg")
