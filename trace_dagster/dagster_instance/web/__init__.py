"""The door before Dagster's web server: it checks host, origin and password of each request."""
