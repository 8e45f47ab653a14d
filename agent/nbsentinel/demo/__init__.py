"""The demonstration behind `nbsentinel demo`: everything in it is real, on loopback, harmless and cleaned up."""
