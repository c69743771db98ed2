"""One training: its network, its steps, its programs on the devices at hand, its loop."""
