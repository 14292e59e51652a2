"How fast the data path is, against what no program can beat and against other programs: `make bench`"
