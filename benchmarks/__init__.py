"""Speed and memory beside the peers: every number is measured in one run on one machine."""
