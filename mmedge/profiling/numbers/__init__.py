"""From samples to numbers: intervals, percentiles, ratios, quality, and reasons to doubt. All of it needs only numpy."""
