"""From a torch checkpoint to a bundle; the only part of mmedge that needs torch."""
