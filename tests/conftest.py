"""Shared by all tests."""

import os

# No test reaches the network: a model that is not there is an error at once.
os.environ["HF_HUB_OFFLINE"] = "1"
