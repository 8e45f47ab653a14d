"""The file sensor: who touches credentials and the places that persistence uses."""
