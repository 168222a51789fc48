"""Plans: the words they are written with, operations, joins, and the machines that walk them."""
