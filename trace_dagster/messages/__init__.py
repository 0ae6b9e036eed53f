"""Text that leaves the process: log lines, and the redaction and escaping that every error and page passes."""
