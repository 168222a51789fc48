"""Questions to the record: what was cut and why, searching, comparing, judging anew, exporting."""
