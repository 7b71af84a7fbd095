"""The transcribe role: speech in, keywords out.

live_speech -> agent -> transcriber: language -> whisper -> guards -> keywords of the catalogue -> live_keywords
product_pages -> catalogue (the vocabulary)
"""
