"""Everything that would fail on the device, found before a bundle is copied there; one file per kind of check."""
