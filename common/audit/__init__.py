"""Find what is wrong with a folder of photographs: damaged files, duplicates, likely wrong labels, odd sizes."""
