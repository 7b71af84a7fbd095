"""The catalog role: product pages in, page vectors out.

product_pages -> agent -> images (fetch, decode) -> encoding (encoder, terms) -> page_vectors, Qdrant
reindex: moves searches to a new collection        files: reads catalogue files for the command line
"""
