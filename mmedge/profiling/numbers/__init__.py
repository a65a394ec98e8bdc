"""From samples to numbers: intervals, percentiles, ratios, quality, and reasons to doubt, with numpy alone."""
