"""An SQS server for tests, which runs as a separate process: ``python sqs_server.py PORT`` on loopback."""

import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

if __name__ == "__main__":
    # One request at a time: moto's queues have no locks, so its own threaded server delivers some messages twice.
    run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
