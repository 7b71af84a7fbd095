"""How far the catalogue has been encoded."""

from topology.index.progress import CatalogProgress
from topology.records import PageVectors


def vectors(partition, offset, model="m@1", **fields):
    return PageVectors(product_id="p", source_partition=partition, source_offset=offset, model_version=model, **fields)


def test_all_partitions_must_be_passed():
    progress = CatalogProgress()
    progress.note(vectors(0, 4))
    assert not progress.has_reached({0: 5, 1: 2})
    assert progress.count({0: 5, 1: 2}) == 5
    progress.note(vectors(1, 1))
    assert progress.has_reached({0: 5, 1: 2})


def test_an_empty_catalogue_is_encoded_from_the_start():
    assert CatalogProgress().has_reached({0: 0, 1: 0})


def test_pages_of_another_model_do_not_count_but_withdrawn_ones_do():
    progress = CatalogProgress("m@2")
    progress.note(vectors(0, 4))
    assert not progress.has_reached({0: 5})
    progress.note(vectors(0, 4, withdrawn=True))
    assert progress.has_reached({0: 5})


def test_failed_pages_count():
    progress = CatalogProgress("m@1")
    progress.note(vectors(0, 4, error="no image"))
    assert progress.has_reached({0: 5})


def test_pages_that_never_reach_the_encoder_are_passed_by():
    progress = CatalogProgress()
    progress.pass_by(0, 4)
    assert progress.has_reached({0: 5})
    progress.note(vectors(0, 2))
    assert progress.has_reached({0: 5})
