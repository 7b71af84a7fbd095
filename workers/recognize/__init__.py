"""The recognize role: windows in, sightings out.

live_windows -> agent -> evidence (search, compare, calibrate) -> tracker (filter over time) -> product_detected
page_vectors -> catalogue (the index) ------^                        recognition_state
"""
