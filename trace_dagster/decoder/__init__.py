"""The second source of rows: Cryo's tables from proven evidence, and call frames from a node's traces."""
