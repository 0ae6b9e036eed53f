"""Compares extracted rows with proven blocks, and checks their structure."""
